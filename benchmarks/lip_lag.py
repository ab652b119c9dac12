"""How much later the mouth moves at other frame rates than at 25 fps, for both values of --alignment.

    python benchmarks/lip_lag.py --output benchmarks/lip_lag.md

The face is the first frame of an embedded avatar, held still, so that only the mouth moves. How far it is
from shut is the RMS difference, over the part of the frame that can change, from what a second of digital
silence gives at 25 fps; 100 % is the furthest that the sample goes at 25 fps. The lag is the shift at which
this, frame by frame at the frames' starts, correlates best with that at 25 fps, drawn as a line between its
frames.

The last columns are the first frame of a second of digital silence: 0 % is a mouth that is shut.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.avatar.store import load_avatar
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.engine.windows import OFFLINE_HOP
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.nets.bundle import Bundle, open_bundle
from musetalk_cli.nets.device import describe_device
from musetalk_cli.nets.embedded import DEMO, demo_sample, embedded_avatars
from musetalk_cli.run.job import make_engine
from musetalk_cli.run.report import versions
from musetalk_cli.timeline import SAMPLE_RATE, Alignment, parse_fps
from musetalk_cli.types import Samples

RATES = ("5", "8", "10", "12", "15", "18", "20", "24", "29.97", "30", "50", "60")
TRAINED = Fraction(25)
ALIGNMENTS: tuple[Alignment, ...] = get_args(Alignment)
SILENCE: Samples = np.zeros((SAMPLE_RATE, 1), np.float32)
FURTHEST_MS = 600
"""How far a lag is searched, on both sides."""

Figures = NDArray[np.float64]


def main() -> None:
    """Speak the sample at every rate, and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--rates", nargs="+", default=RATES, help="frames per second")
    args = parser.parse_args()
    bundle, avatar, sound, rate = embedded(args.avatar)
    mouth = Mouth(bundle, avatar, sound, rate)
    lines = [
        *heading("Lag of the lips against 25 fps", "lip_lag", args.avatar, bundle, __doc__),
        "| fps | " + " | ".join(f"lag, {name}" for name in ALIGNMENTS)
        + " | " + " | ".join(f"first of silence, {name}" for name in ALIGNMENTS) + " |",
        "|---" * (1 + 2 * len(ALIGNMENTS)) + "|",
    ]  # fmt: skip
    for text in args.rates:
        fps = parse_fps(text)
        cells = [text]
        cells += [f"{mouth.lag_ms(fps, name):+d} ms" for name in ALIGNMENTS]
        cells += [f"{100 * mouth.first_of_silence(fps, name):.1f} %" for name in ALIGNMENTS]
        lines.append("| " + " | ".join(cells) + " |")
    give(lines, args.output)


def parser_of(text: str) -> argparse.ArgumentParser:
    """The options that every table of a face has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--avatar", default=DEMO, help="an embedded avatar")
    parser.add_argument("--output", type=Path, help="file for the table; else it is printed")
    return parser


def embedded(name: str) -> tuple[Bundle, Avatar, Samples, int]:
    """The demo networks, the first frame of an embedded avatar, and the sample it speaks, with its rate."""
    home, sample = embedded_avatars(), demo_sample()
    if home is None or sample is None:
        raise SystemExit("The embedded avatars are not installed.")
    run = RunConfig(avatars=DataFolder(home, "embedded"), model=DEMO, device="cpu")
    return open_bundle(run), still(load_avatar(home, name)), *read(sample)


def heading(title: str, script: str, avatar: str, bundle: Bundle, text: str) -> list[str]:
    """What stands over a table: command, networks, machine, versions, and how it was measured."""
    return [
        f"# {title}",
        "",
        f"`python benchmarks/{script}.py`, avatar {avatar}, the demo networks in "
        f"{str(bundle.dtype).removeprefix('torch.')} on a CPU ({describe_device(bundle.device)}).",
        ", ".join(f"{name} {number}" for name, number in versions().items()) + ".",
        "",
        *text.split("\n\n", 2)[2].strip().splitlines(),
        "",
    ]


def give(lines: Sequence[str], output: Path | None) -> None:
    """Print a table, or write it to a file."""
    table = "\n".join(lines) + "\n"
    if output is None:
        print(table, end="")
    else:
        output.write_text(table)


def still(avatar: Avatar) -> Avatar:
    """The same with its first frame alone."""
    meta = dataclasses.replace(
        avatar.meta, boxes=avatar.meta.boxes[:1], crop_boxes=avatar.meta.crop_boxes[:1], rest_frames=(0,)
    )
    return Avatar(meta, avatar.frames[:1], avatar.patches[:1], avatar.latents[:1])


def read(path: Path) -> tuple[Samples, int]:
    """A sound, `[n, channels]`, and its rate."""
    with SoundReader(path) as reader:
        return np.concatenate(list(reader.blocks(reader.sample_rate))), reader.sample_rate


class Mouth:
    """How far a mouth is from shut, frame by frame, while it says something.

    Args:
        bundle: The networks.
        avatar: The face, one frame.
        sound: What it says, float32 `[n, channels]`.
        sample_rate: Samples per second.
    """

    def __init__(self, bundle: Bundle, avatar: Avatar, sound: Samples, sample_rate: int) -> None:
        self._bundle, self._avatar = bundle, avatar
        self._sound, self._sample_rate = sound, sample_rate
        self._shut = self._levels(SILENCE, SAMPLE_RATE, TRAINED, "frame")[-1]
        self._widest = 1.0
        trained = self._opening(sound, sample_rate, TRAINED, "frame")
        self._widest = float(trained.max())
        self._trained = trained / self._widest

    def lag_ms(self, fps: Fraction, alignment: Alignment) -> int:
        """Milliseconds by which the mouth is later than at 25 fps; less than 0 is earlier."""
        opening = self._opening(self._sound, self._sample_rate, fps, alignment)
        times = np.arange(len(opening)) / float(fps)
        trained = np.arange(len(self._trained)) / float(TRAINED)
        lags = range(-FURTHEST_MS, FURTHEST_MS + 1)
        alike = [
            float(np.corrcoef(opening, np.interp(times - lag / 1000, trained, self._trained))[0, 1])
            for lag in lags
        ]
        return lags[int(np.argmax(alike))]

    def first_of_silence(self, fps: Fraction, alignment: Alignment) -> float:
        """How far from shut the first frame of a second of silence is; 1 is the furthest in the sample."""
        return float(self._opening(SILENCE, SAMPLE_RATE, fps, alignment)[0])

    def _opening(self, sound: Samples, sample_rate: int, fps: Fraction, alignment: Alignment) -> Figures:
        away = self._levels(sound, sample_rate, fps, alignment) - self._shut
        return np.sqrt(np.square(away).mean(axis=(1, 2))) / self._widest

    def _levels(self, sound: Samples, sample_rate: int, fps: Fraction, alignment: Alignment) -> Figures:
        """Grey levels of the part of the frame that can change, `[frames, rows, columns]`."""
        patch = self._avatar.patches[0]
        if patch is None:
            raise SystemExit("The first frame of the avatar has no face.")
        job = JobConfig(fps=fps, alignment=alignment, chunk=OFFLINE_HOP)
        engine = make_engine(self._bundle, job, MonotonicClock(), live=False)
        channels = sound.shape[1]
        session = engine.open(self._avatar, fps, OFFLINE_HOP, Fraction(0), sample_rate, channels)
        session.hear(sound, 0.0)
        session.end_sound(0.0)
        frames: list[Sequence[float]] = []
        while engine.step():
            while session.untaken:
                picture = session.take().image[patch.box.slices()]
                frames.append(picture.astype(np.float64).mean(axis=2))
        return np.array(frames)


if __name__ == "__main__":
    main()
