"""The only index arithmetic: sample <-> frame <-> whisper row <-> mirrored source frame.

Everything is exact: rates are fractions and positions are integers, so no index depends on how a
product happens to be rounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from musetalk_cli.errors import InputError

SAMPLE_RATE = 16_000
"""Samples per second the audio encoder hears."""
ROWS_PER_SECOND = 50
"""Rows per second the audio encoder gives."""
SAMPLES_PER_ROW = SAMPLE_RATE // ROWS_PER_SECOND
WINDOW_SAMPLES = 30 * SAMPLE_RATE
"""Length of the encoder's window."""
ROW_MARGIN = 2
"""Frames of context on each side of a frame (upstream's left and right padding)."""
ROWS_PER_FRAME = 2 * (2 * ROW_MARGIN + 1)
"""Rows a frame is conditioned on."""

_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,12}|/\d{1,9})?")
"""Short enough that no exponent makes an exact fraction of a billion digits."""
FPS_RANGE = (1, 120)
CHUNK_RANGE = (Fraction(4, 100), Fraction(30))


def parse_fps(value: str | float | Fraction) -> Fraction:
    """Read a frame rate such as `25`, `29.97` or `30000/1001`, exactly.

    Raises:
        InputError: It is not a number, or outside 1..120.
    """
    fps = _fraction(value, "--fps")
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        raise InputError(
            f"--fps {value} is outside {FPS_RANGE[0]}..{FPS_RANGE[1]}.", "Faces are trained at 25 fps."
        )
    return fps


def parse_chunk(value: str | float | Fraction) -> Fraction:
    """Read a chunk length in seconds, exactly.

    Raises:
        InputError: It is not a number, or outside 0.04..30 s.
    """
    chunk = _fraction(value, "--chunk")
    low, high = CHUNK_RANGE
    if not low <= chunk <= high:
        raise InputError(
            f"--chunk {value} is outside {float(low):g}..{float(high):g} s.", "0.5 is a good start."
        )
    return chunk


def parse_seconds(value: str | float | Fraction, option: str) -> Fraction:
    """Read a place in time or a length in seconds, exactly.

    Raises:
        InputError: It is not a number, or less than 0.
    """
    seconds = _fraction(value, option)
    if seconds < 0:
        raise InputError(f"{option} {value} is less than 0.", "Write seconds, like 2.5.")
    return seconds


def parse_context(value: str) -> Fraction | None:
    """Read the seconds of past sound of a window; `max`, as much as fits, is None.

    Raises:
        InputError: It is neither `max` nor a number in 0..30.
    """
    if value == "max":
        return None
    context = _fraction(value, "--context")
    if not 0 <= context <= 30:
        raise InputError(f"--context {value} is outside 0..30 s.", "Use max for as much as fits.")
    return context


def _fraction(value: str | float | Fraction, option: str) -> Fraction:
    text = str(value)
    try:
        if not _NUMBER.fullmatch(text):
            raise ValueError(text)
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"{option} {value} is not a number.", "Write it like 25, 0.5 or 30000/1001."
        ) from None


def ceil_div(a: Fraction | int, b: Fraction | int) -> int:
    """The smallest integer that is at least `a / b`."""
    return int(-(-a // b))


@dataclass(frozen=True, slots=True)
class Timeline:
    """Index arithmetic at one frame rate.

    Attributes:
        fps: Frames per second, exactly.
    """

    fps: Fraction

    def frames_in(self, samples: int, sample_rate: int = SAMPLE_RATE) -> int:
        """Whole frames that `samples` of sound last."""
        return int(samples * self.fps // sample_rate)

    def frame_start(self, frame: int, sample_rate: int = SAMPLE_RATE) -> int:
        """The first whole sample of a frame, which owns all up to the first of the next."""
        return ceil_div(frame * sample_rate, self.fps)

    def pts(self, frame: int) -> Fraction:
        """Seconds from the start of the stream to the start of a frame."""
        return frame / self.fps

    def first_row(self, frame: int) -> int:
        """First of the `ROWS_PER_FRAME` encoder rows of a frame; rows below 0 are zero.

        Upstream pads `ceil(50 / fps) * 2` zero rows in front and takes rows from `floor(i * 50 / fps)`.
        """
        return int(frame * ROWS_PER_SECOND // self.fps) - ceil_div(ROWS_PER_SECOND, self.fps) * ROW_MARGIN

    def last_row(self, frame: int) -> int:
        """One past the last encoder row of a frame."""
        return self.first_row(frame) + ROWS_PER_FRAME

    def complete(self, frame: int, samples: int) -> bool:
        """True once `samples` of a stream that goes on suffice to compute a frame.

        Its rows must exist, and the sound must reach the end of the next frame: the last frame of a
        stream then always waits for the end, and takes the sound left over with it.
        """
        return self.last_row(frame) <= rows_in(samples) and self.frame_start(frame + 2) <= samples


def rows_in(samples: int) -> int:
    """Encoder rows that `samples` at 16 kHz give."""
    return samples // SAMPLES_PER_ROW


def mirrored(frame: int, count: int) -> int:
    """Source frame shown at `frame` when `count` forward frames loop forward, then backward.

    The period is `2 * count`: 0, 1, ..., count-1, count-1, ..., 1, 0.
    """
    step = frame % (2 * count)
    return step if step < count else 2 * count - 1 - step
