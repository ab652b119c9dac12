"""How much slower the demo speaks where other programs work beside it, by how threads wait for each other.

    python benchmarks/contention.py [--rounds 5] [--seconds 8] [--settings before,product] [--json FILE]

A setting is `before` (libgomp's own 300000 turns), `product` (what musetalk sets), `spin:TURNS`, `passive`
or `threads:N`. Settings may be joined, like `spin:1000+threads:1`. In every round each setting runs in each
situation, one after the other in an order that turns by one from round to round: a machine whose speed drifts
does so for all. A run is a process of its own that speaks the demo's sample as fast as it can.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from turns import in_turn, stretches

from musetalk_cli import __version__

ROOT = Path(__file__).parents[1]
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
LIBGOMP_TURNS = "300000"
SITUATIONS = {
    "alone": (0, False),
    "H.264 output": (0, True),
    "one busy loop": (1, False),
    "two busy loops": (2, False),
    "H.264 and one busy loop": (1, True),
}
"""How many busy loops run beside, and whether a video is encoded."""


def variables(setting: str) -> dict[str, str]:
    """The environment variables of a setting."""
    found: dict[str, str] = {}
    for part in setting.split("+"):
        kind, _, value = part.partition(":")
        match kind:
            case "before":
                found["GOMP_SPINCOUNT"] = LIBGOMP_TURNS
            case "product":
                pass
            case "spin":
                found["GOMP_SPINCOUNT"] = value
            case "passive":
                found["OMP_WAIT_POLICY"] = "PASSIVE"
            case "threads":
                found["OMP_NUM_THREADS"] = value
            case _:
                raise SystemExit(f"{part} is no setting")
    return found


def speak(setting: str, sound: Path, video: Path | None) -> float:
    """Seconds of work per second of sound, of one run."""
    environment = {name: value for name, value in os.environ.items() if name not in OWN} | variables(setting)
    environment["PYTHONPATH"] = str(ROOT)
    arguments = ["--avatar", "demo", "--audio", str(sound), "--no-pace", "--no-live", "--silence", "off"]
    arguments += ["--output", "null" if video is None else str(video), "--device", "cpu", "--json"]
    command = [sys.executable, "-m", "musetalk_cli", "realtime", *arguments]
    run = subprocess.run(command, check=False, env=environment, cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr)
    return float(json.loads(run.stdout)["real_time_factor"])


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """Programs beside that do nothing but work."""
    beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for one in beside:
            one.kill()
            one.wait()


def measure(
    settings: list[str], situations: list[str], rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """Real-time factors by setting and situation, one a round."""
    found: dict[str, dict[str, list[float]]] = {one: {name: [] for name in situations} for one in settings}
    with tempfile.TemporaryDirectory() as folder:
        [sound] = stretches(Path(folder), 1, seconds)
        for number in range(rounds):
            for situation in situations:
                loops, encoded = SITUATIONS[situation]
                for setting in in_turn(settings, number):
                    video = Path(folder) / "video.mp4" if encoded else None
                    with busy(loops):
                        factor = speak(setting, sound, video)
                    found[setting][situation].append(factor)
                    print(f"round {number + 1}: {setting}, {situation}: {factor:.3f}", file=sys.stderr)
    return found


def main() -> None:
    """Print a table of medians, and what each is relative to the first setting alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--settings", default="before,product")
    parser.add_argument("--situations", default=",".join(SITUATIONS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    situations = args.situations.split(",")
    settings = args.settings.split(",")
    found = measure(settings, situations, args.rounds, args.seconds)
    middle = {
        one: {name: statistics.median(all_) for name, all_ in row.items()} for one, row in found.items()
    }
    print(f"| setting | {' | '.join(situations)} |\n|---|{'---|' * len(situations)}")
    for setting, row in middle.items():
        own = row.get("alone")
        cells = [f"{value:.2f}" + (f" ({value / own:.2f})" if own else "") for value in row.values()]
        print(f"| `{setting}` | {' | '.join(cells)} |")
    if args.json:
        import torch

        about = {
            "command": " ".join(["python", *sys.argv]),
            "cores": os.cpu_count(),
            "machine": platform.machine(),
            "torch": torch.__version__,
            "musetalk": __version__,
            "real_time_factor": found,
            "medians": middle,
        }
        args.json.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
