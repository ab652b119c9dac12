"""Videos a minute: `musetalk batch` with 1 and 2 workers beside a plain loop, and what a second avatar costs.

    python benchmarks/batch.py [--jobs 8] [--seconds 4] [--long 120] [--rounds 3] [--json FILE]

Every way makes the same number of videos of the demo, each from its own stretch of the demo's sample. In
every round all ways run, one after the other in an order that turns by one from round to round, so a machine
whose speed drifts does so for all. What counts is the wall time of everything, with starting and loading:

    loop            `musetalk generate` for each video, one after the other
    one process     the same calls in one Python that keeps what it loads: what a worker can reach at best
    1 worker, 2 workers     `musetalk batch --workers N`
    two avatars     `musetalk batch --workers 1`, half of the videos with the avatar demo2

And one long sound, the sample again and again, in a table of its own (`--long 0` leaves it out):

    alone           `musetalk batch --workers 1`
    shared          `musetalk batch --workers 2 --split-over`, so that there are two parts
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

from turns import in_turn, stretches

from musetalk_cli import __version__

ROOT = Path(__file__).parents[1]
MUSETALK = [sys.executable, "-m", "musetalk_cli"]
SHARED = ["--models-dir", str(ROOT / "models"), "--avatars-dir", str(ROOT / "avatars"), "--device", "cpu"]
ONE_PROCESS = """
import sys
from pathlib import Path
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.run.generate import generate
from musetalk_cli.run.kept import Kept
models, avatars, *sounds = sys.argv[1:]
run = RunConfig(DataFolder(Path(models), "flag"), DataFolder(Path(avatars), "flag"), None, "cpu")
kept = Kept()
for sound in sounds:
    generate(run, JobConfig(), "demo", Path(sound), Path(sound).with_suffix(".mp4"), kept=kept)
"""
Way = Callable[[list[Path]], None]


def call(*command: str | Path) -> None:
    """Run a command; what it says is shown only where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[:4]} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def loop(sounds: list[Path]) -> None:
    """A program for each video."""
    for sound in sounds:
        out = sound.with_suffix(".mp4")
        call(*MUSETALK, "generate", "--avatar", "demo", "--audio", sound, "--output", out, *SHARED)


def one_process(sounds: list[Path]) -> None:
    """One program that keeps what it loads."""
    call(sys.executable, "-c", ONE_PROCESS, ROOT / "models", ROOT / "avatars", *sounds)


def batch(workers: int, avatars: tuple[str, ...] = ("demo",)) -> Way:
    """A batch; each avatar gets the same share of the videos, in one row after the other."""

    def run(sounds: list[Path]) -> None:
        manifest = sounds[0].with_name("list.csv")
        with manifest.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("avatar", "audio", "output"))
            writer.writerows(
                (avatars[number % len(avatars)], sound.name, f"{sound.stem}.mp4")
                for number, sound in enumerate(sounds)
            )
        call(*MUSETALK, "batch", manifest, "--workers", str(workers), *SHARED)

    return run


def shared(sounds: list[Path]) -> None:
    """A batch of one sound for two workers."""
    manifest, sound = sounds[0].with_name("list.csv"), sounds[0]
    with wave.open(str(sound)) as opened:
        half = opened.getnframes() / opened.getframerate() / 2
    manifest.write_text(f"avatar,audio,output\ndemo,{sound.name},long.mp4\n")
    call(*MUSETALK, "batch", manifest, "--workers", "2", "--split-over", f"{half:.3f}", *SHARED)


WAYS: dict[str, Way] = {
    "loop": loop,
    "one process": one_process,
    "1 worker": batch(1),
    "2 workers": batch(2),
    "two avatars": batch(1, ("demo", "demo2")),
}
LONG_WAYS: dict[str, Way] = {"alone": batch(1), "shared": shared}


def measure(ways: dict[str, Way], jobs: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Wall seconds of each way in each round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in in_turn(list(ways), turn):
            with tempfile.TemporaryDirectory() as folder:
                sounds = stretches(Path(folder), jobs, seconds)
                begun = time.perf_counter()
                ways[name](sounds)
                taken[name].append(time.perf_counter() - begun)
            print(f"round {turn + 1}, {name}: {taken[name][-1]:.1f} s", file=sys.stderr)
    return taken


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="of sound in each video")
    parser.add_argument("--long", type=float, default=120.0, help="seconds of it, from 60 on; or 0")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    taken = measure(WAYS, given.jobs, given.seconds, given.rounds)
    alone = measure(LONG_WAYS, 1, given.long, given.rounds) if given.long else {}
    middle = {name: statistics.median(seconds) for name, seconds in taken.items()}
    print(f"{given.jobs} videos of {given.seconds:g} s, {given.rounds} rounds; {os.cpu_count()} cores,")
    print(
        f"{platform.processor() or platform.machine()}, musetalk {__version__}, {platform.python_version()}\n"
    )
    print("| way | seconds, median (all) | videos a minute | of the loop's time | of one process's time |")
    print("|---|---|---|---|---|")
    for name, seconds in middle.items():
        each = ", ".join(f"{one:.1f}" for one in taken[name])
        ratios = f"{seconds / middle['loop']:.2f} | {seconds / middle['one process']:.2f}"
        print(f"| {name} | {seconds:.1f} ({each}) | {60 * given.jobs / seconds:.1f} | {ratios} |")
    if alone:
        print(f"\n| one sound of {given.long:g} s | seconds, median (all) | of alone |\n|---|---|---|")
    for name, times in alone.items():
        each = ", ".join(f"{one:.1f}" for one in times)
        ratio = statistics.median(times) / statistics.median(alone["alone"])
        print(f"| {name} | {statistics.median(times):.1f} ({each}) | {ratio:.2f} |")
    if given.json is not None:
        record = {"given": vars(given) | {"json": None}, "seconds": taken, "long": alone}
        given.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
