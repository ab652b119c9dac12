"""What is measured, as it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from musetalk_cli.bench.compare import TOLERANCE
from musetalk_cli.bench.hardware import GpuName
from musetalk_cli.config import check_batch_size
from musetalk_cli.errors import InputError
from musetalk_cli.run.prepare_outputs import DetectorName, ParserName

MAX_FRAMES = 20_000
Sending = Literal["burst", "spoken"]
"""Each utterance at once, as a synthesiser gives it; or in packets at their own time, as it is spoken."""
SIDES = (32, 8192)
"""Columns and rows that a synthetic frame may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarSizes:
    """Of an avatar that is drawn for the measurement.

    Attributes:
        width: Columns of its frames.
        height: Rows of its frames.
        face: Rows of its face's box.
        frames: Forward frames.
    """

    width: int = 1280
    height: int = 720
    face: int = 300
    frames: int = 50


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What is measured.

    Attributes:
        chunks: Seconds of sound per chunk, a stream for each; None is 0.1, 0.2 and 0.5 on a GPU, and 0.5 on a
            CPU.
        seconds: Seconds of sound of each stream; None is 10 on a GPU and 1 on a CPU.
        budget_s: Seconds spent on each single figure; a slower call is measured once.
        baseline: Measure the published order of work too.
        predict: A GPU whose times are predicted besides, or None.
        profile: A folder for a recording of some batches, or None.
        compare: Figures of an earlier run to compare with, or None.
        tolerance: Part by which a figure may be worse than the earlier one.
        sizes: Of the avatar that speaks.
    """

    chunks: tuple[Fraction, ...] | None = None
    seconds: float | None = None
    budget_s: float = 2.0
    baseline: bool = True
    predict: GpuName | None = None
    profile: Path | None = None
    compare: Path | None = None
    tolerance: float = TOLERANCE
    sizes: AvatarSizes = AvatarSizes()


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What is measured.

    Attributes:
        chunks: Seconds of sound per chunk, one run each.
        seconds: Seconds of each run, on the wall clock.
        sizes: Of the avatar that speaks.
    """

    chunks: tuple[Fraction, ...] = (Fraction(1, 10), Fraction(1, 5), Fraction(1, 2))
    seconds: float = 30.0
    sizes: AvatarSizes = AvatarSizes()


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """What is measured.

    Attributes:
        sessions: Streams that speak at once; None is as many as the machine sustains by its warm-up, which
            keeps a fifth of the time free.
        seconds: How long they speak, on the wall clock.
        sizes: Of the avatar that speaks.
    """

    sessions: int | None = None
    seconds: float = 60.0
    sizes: AvatarSizes = AvatarSizes()


@dataclass(frozen=True, slots=True)
class ResponseOptions:
    """What is measured.

    Attributes:
        chunks: Seconds of sound per chunk; None is the shortest that the machine sustains.
        sendings: How the sound is sent; each with each length of chunk is a run.
        utterances: Their number in each run.
        pause_s: Seconds of silence between them, at the least.
        sizes: Of the avatar that speaks.
    """

    chunks: tuple[Fraction | None, ...] = (Fraction(1, 10), Fraction(1, 5), Fraction(1, 2))
    sendings: tuple[Sending, ...] = ("burst", "spoken")
    utterances: int = 20
    pause_s: float = 2.0
    sizes: AvatarSizes = AvatarSizes()


@dataclass(frozen=True, slots=True)
class PreparingOptions:
    """What is measured.

    Attributes:
        frames: Lengths of the clip, 1..20000 each.
        width: Columns of its frames, even.
        height: Rows of its frames, even.
        detector: What finds the face.
        parser: What draws the mask.
        batch_size: Faces encoded at once in our order; None is what suits the device.
        baseline: Measure the published order of work too.

    Raises:
        InputError: A value is out of range.
    """

    frames: tuple[int, ...] = (250, 1000)
    width: int = 1280
    height: int = 720
    detector: DetectorName = "auto"
    parser: ParserName = "auto"
    batch_size: int | None = None
    baseline: bool = True

    def __post_init__(self) -> None:
        if not self.frames or not all(1 <= count <= MAX_FRAMES for count in self.frames):
            raise InputError(f"--frames is outside 1..{MAX_FRAMES}.", "Write it like 250,1000.")
        low, high = SIDES
        if not all(low <= side <= high and side % 2 == 0 for side in (self.width, self.height)):
            raise InputError(
                f"--frame-size {self.width}x{self.height} is not a size of even numbers in {low}..{high}.",
                "Write it like 1280x720.",
            )
        check_batch_size(self.batch_size)
