"""Which frames of a source are wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from musetalk_cli.errors import InputError
from musetalk_cli.timeline import FPS_LIMITS, FPS_RANGE

_MIN_SIZE = 32


@dataclass(frozen=True, slots=True)
class Selection:
    """Which frames of a source are taken, and how large they may be.

    The source is first brought to its rate; then the frames that begin within the wanted time are taken.

    Attributes:
        start: Seconds left out at the beginning.
        duration: Seconds taken, or None for all.
        fps: Frames per second to resample to, or None to keep those of the source.
        max_frames: At most so many frames, or None.
        max_size: Pixels of the longer side at most, or None; larger frames are scaled down.

    Raises:
        InputError: A value makes no sense; names the option.
    """

    start: Fraction = Fraction(0)
    duration: Fraction | None = None
    fps: Fraction | None = None
    max_frames: int | None = None
    max_size: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0:
            raise InputError(f"--start is {float(self.start):g}.", "Pass seconds from 0.")
        if self.duration is not None and self.duration <= 0:
            raise InputError(f"--duration is {float(self.duration):g}.", "Pass seconds above 0.")
        low, high = FPS_RANGE
        if self.fps is not None and not low <= self.fps <= high:
            raise InputError(f"--fps is {float(self.fps):g}.", f"Pass frames per second in {FPS_LIMITS}.")
        if self.max_frames is not None and self.max_frames < 1:
            raise InputError(f"--max-frames is {self.max_frames}.", "Pass a number of frames from 1.")
        if self.max_size is not None and self.max_size < _MIN_SIZE:
            raise InputError(f"--max-size is {self.max_size}.", f"Pass pixels from {_MIN_SIZE}.")

    def numbers(self, rate: Fraction, total: int | None) -> tuple[int, int | None]:
        """The first frame taken and the one after the last, of `total` frames at a rate; at least one frame.

        The second is None where neither the total nor the duration limits it; `max_frames` is not applied.
        """
        first = math.ceil(self.start * rate)
        if total is not None:
            first = max(min(first, total - 1), 0)
        if self.duration is None:
            return first, total
        stop = max(math.ceil((self.start + self.duration) * rate), first + 1)
        return first, stop if total is None else min(stop, total)


EVERYTHING = Selection()
"""All frames of a source as they are."""
