"""How far the mouth is from the sound in a browser that watches the demo.

    python -m benchmarks.page_sync [--rounds 5] [--fps 25] [--loud] [--json FILE]

Chromium watches `musetalk serve` and has the sample spoken. In the page the opening of the mouth (the light
of its region) is taken with the time at which each picture is seen, and the power of the sound as WebRTC
gives it. Each is laid over what it should be, the frames of `musetalk generate` and the sample, and where it
fits best says when the sample began for the eye and for the ear. The difference is what a viewer sees: above
0 the mouth is late. The head moves too, slowly and from another place of its clip each time, so of the light
only what is faster counts: frames of `musetalk generate` whose clip begins elsewhere fit with 0.91 by that,
and with 0.79 to 0.87 without.

On a machine that is too weak for networks, service and browser at once, `--loud` has faces without networks,
whose light is how loud the sound of their frame is (`loud_face.py`): what the service, WebRTC and the browser
do to the time is the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.demo_page import ROOT, chromium, demo_service
from benchmarks.loud_face import DARKER, SKIN, row_levels
from benchmarks.serve_load_server import Server
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.run.generate import generate

if TYPE_CHECKING:
    from playwright.sync_api import Page

HERE = Path(__file__).parent
SAMPLE = ROOT / "avatars" / "demo" / "sample.wav"
MOUTH = (190, 350, 320, 440)
"""Of the demo."""
LIGHT = (0.299, 0.587, 0.114)
WINDOW_S = 0.01
STEP_S = 0.001
SLOW_S = 0.3
"""Light is taken from its mean over so much time on both sides."""
LOUD_FPS = 25
FIT = 0.8
"""How well both must fit; where the machine was busy, neither does, and the round says nothing."""
FEWEST = 40
"""Values that are compared at the least."""

Box = tuple[int, int, int, int]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Seconds, and values."""


@dataclass(frozen=True)
class Sync:
    """What one round gave.

    Attributes:
        mouth_after_sound_ms: Above 0 the mouth is late.
        mouth_alike: How well the mouth fits, at most 1.
        sound_alike: How well the sound fits, at most 1.
        pictures: How many were seen.
    """

    mouth_after_sound_ms: float
    mouth_alike: float
    sound_alike: float
    pictures: int

    @property
    def fits(self) -> bool:
        """True where the round says something."""
        return min(self.mouth_alike, self.sound_alike) > FIT


@dataclass(frozen=True)
class Truth:
    """What should be seen and heard, in seconds from the start of a sound.

    Attributes:
        file: The sound.
        box: Left, top, right and bottom of where the mouth is, in all frames.
        mouth: What is quick in the light of the mouth's region, one value for each frame.
        sound: Level of the sound.
        seconds: Length of the sound.
    """

    file: Path
    box: Box
    mouth: Curve
    sound: Curve
    seconds: float


def truth_of(run: RunConfig, job: JobConfig, avatar: str, sound: Path, box: Box) -> Truth:
    """What an avatar does for a sound, as `musetalk generate` has it."""
    with tempfile.TemporaryDirectory() as work:
        generate(run, job, avatar, sound, frames_dir=Path(work))
        left, top, right, bottom = box
        light = [
            float((np.asarray(Image.open(path).convert("RGB"))[top:bottom, left:right] @ LIGHT).mean())
            for path in sorted(Path(work).iterdir())
        ]
    mouth = quick((np.arange(len(light)) / float(job.fps), np.array(light)))
    return Truth(sound, box, mouth, level_of(sound), soundfile.info(sound).duration)


def level_of(sound: Path) -> Curve:
    """How loud a sound is, in windows of 10 ms."""
    samples, rate = soundfile.read(sound, dtype="float64")
    window = round(WINDOW_S * rate)
    power = np.convolve(samples**2, np.ones(window) / window, "valid")[:: window // 4]
    times = (np.arange(len(power)) * (window // 4) + window / 2) / rate
    return times, np.sqrt(power)


def truth_of_loud(sound: Path, box: Box) -> Truth:
    """What a loud face does for a sound of 16 kHz: the louder, the darker."""
    samples, rate = soundfile.read(sound, dtype="float32")
    levels = row_levels(samples)
    frames = levels[: len(levels) // 2 * 2].reshape(-1, 2).mean(axis=1).astype(np.float64)
    mouth = quick((np.arange(len(frames)) / LOUD_FPS, SKIN - DARKER * frames))
    return Truth(sound, box, mouth, level_of(sound), len(samples) / rate)


def quick(curve: Curve) -> Curve:
    """What is quick in a curve: each value less the mean around it."""
    times, values = curve
    means = [values[np.abs(times - time) <= SLOW_S].mean() for time in times]
    return times, values - np.array(means)


@contextlib.contextmanager
def loud_service() -> Iterator[str]:
    """A service whose faces are loud ones; its address."""
    server = Server("loud")
    try:
        yield server.url
    finally:
        server.end()


def laid_over(seen: Curve, truth: Curve, places: NDArray[np.float64]) -> tuple[float, float]:
    """Where a curve begins for it to be most like its truth, and how much it is."""
    times, values = seen
    found = float(places[0]), -1.0
    for place in places:
        inside = (times >= place + truth[0][0]) & (times <= place + truth[0][-1])
        if np.count_nonzero(inside) < FEWEST:
            continue
        alike = float(np.corrcoef(values[inside], np.interp(times[inside] - place, *truth))[0, 1])
        if alike > found[1]:
            found = float(place), alike
    return found


def measure(page: Page, truth: Truth) -> Sync:
    """Have the sound spoken in a page that is connected, and compare.

    The page's policy must be off (`bypass_csp`): it lets no script in that is not the service's own.
    """
    page.set_input_files("#file", truth.file)
    options = {
        "box": truth.box,
        "seconds": truth.seconds + 2.5,
        "meter": (HERE / "page_meter.js").read_text(),
    }
    told = page.evaluate((HERE / "page_sync.js").read_text(), options)
    pictures, levels = (np.array(told[name]) for name in ("pictures", "levels"))
    eye = quick((pictures[:, 0] / 1000, pictures[:, 1]))
    ear = levels[:, 0] / 1000 + 128 / 48_000, np.sqrt(levels[:, 1])
    rough = eye[0][0] + np.arange(-0.5, 4, 0.02)
    begins = []
    for seen, should in ((ear, truth.sound), (eye, truth.mouth)):
        place, _ = laid_over(seen, should, rough)
        begins.append(laid_over(seen, should, place + np.arange(-0.03, 0.03, STEP_S)))
    (heard, sound_alike), (looked, mouth_alike) = begins
    return Sync(1000 * (looked - heard), mouth_alike, sound_alike, len(pictures))


def main() -> None:
    """Measure, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fps", type=Fraction, default=Fraction(25))
    parser.add_argument("--loud", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.loud and options.fps != LOUD_FPS:
        parser.error(f"--loud is for {LOUD_FPS} frames a second")
    if options.loud:
        truth, service = truth_of_loud(SAMPLE, MOUTH), loud_service()
    else:
        truth = truth_of(RunConfig(), JobConfig(fps=options.fps), "demo", SAMPLE, MOUTH)
        service = demo_service("--fps", str(options.fps))
    with service as url, chromium() as browser:
        page = browser.new_page(bypass_csp=True)
        page.goto(url)
        page.locator("#connect:enabled").click()
        page.locator("#state[data-state=live]").wait_for()
        rounds = []
        for _ in range(options.rounds):
            rounds.append(measure(page, truth))
            print(rounds[-1], flush=True)
            page.locator("#state[data-state=live]").wait_for(timeout=60_000)
        page.click("#stop")
    late = [each.mouth_after_sound_ms for each in rounds if each.fits]
    print(f"{len(late)} of {len(rounds)} rounds fit; where few do, the machine was too busy")
    if late:
        print(
            f"mouth after sound: median {statistics.median(late):.0f}, {min(late):.0f} to {max(late):.0f} ms"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in rounds], indent=1))


if __name__ == "__main__":
    main()
