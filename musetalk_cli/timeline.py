"""The only index arithmetic: sample <-> frame <-> whisper row <-> mirrored source frame.

Everything is exact: rates are fractions and positions are integers, so no index depends on how a
product happens to be rounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from musetalk_cli.errors import InputError

Alignment = Literal["frame", "published"]
"""Which rows of the audio encoder a frame hears: those around its start at every rate, or upstream's."""

SAMPLE_RATE = 16_000
"""Samples per second the audio encoder hears."""
ROWS_PER_SECOND = 50
"""Rows per second the audio encoder gives."""
SAMPLES_PER_ROW = SAMPLE_RATE // ROWS_PER_SECOND
WINDOW_SAMPLES = 30 * SAMPLE_RATE
"""Length of the encoder's window."""
ROWS_PER_WINDOW = WINDOW_SAMPLES // SAMPLES_PER_ROW
ROWS_PER_FRAME = 10
"""Rows a frame is conditioned on."""
ROWS_BEFORE = 4
"""Those of them before the row in which the frame starts, as the networks were trained at 25 fps."""
PADDING_FRAMES = 2
"""Frames of zero rows that the published code puts in front of a sound."""

_NUMBER = re.compile(r"-?\d{1,9}(\.\d{1,12}|/\d{1,9})?")
"""Short enough that no exponent makes an exact fraction of a billion digits."""
FPS_RANGE = (1, 120)
"""Frames per second that a result can have, or a source that is brought to another rate."""
FPS_LIMITS = "{}..{}".format(*FPS_RANGE)
DEFAULT_FPS = Fraction(25)
"""Frames per second that faces are trained at, and of sources that have no rate of their own."""
CHUNK_RANGE = (Fraction(4, 100), Fraction(2))
"""Seconds of a hop."""
CHUNK_LIMITS = "{:g}..{:g}".format(*map(float, CHUNK_RANGE))
AHEAD_RANGE = (1, 600)
"""Seconds of sound that a stream may take ahead of its time: most sentences, and little memory."""
AHEAD_LIMITS = "{}..{}".format(*AHEAD_RANGE)
WINDOW_RANGE = (Fraction(3), Fraction(30))
"""Seconds of a window: it holds the longest hop and what its frames hear; no position is later than 30 s."""
WINDOW_LIMITS = "{:g}..{:g}".format(*map(float, WINDOW_RANGE))


def parse_fps(value: str | float | Fraction) -> Fraction:
    """Read a frame rate such as `25`, `29.97` or `30000/1001`, exactly.

    Raises:
        InputError: It is not a number, or outside 1..120.
    """
    return _within(value, "--fps", FPS_RANGE, FPS_LIMITS, "Faces are trained at 25 fps.")


def parse_chunk(value: str | float | Fraction) -> Fraction:
    """Read a chunk length in seconds, exactly.

    Raises:
        InputError: It is not a number, or outside 0.04..2 s.
    """
    return _within(value, "--chunk", CHUNK_RANGE, f"{CHUNK_LIMITS} s", "0.5 is a good start.")


def parse_live_chunk(value: str) -> Fraction | None:
    """Read a chunk length in seconds, exactly; `auto`, as short as the machine sustains, is None.

    Raises:
        InputError: It is neither `auto` nor a number in 0.04..2 s.
    """
    return None if value == "auto" else parse_chunk(value)


def parse_ahead(value: str | float | Fraction) -> Fraction:
    """Read how much sound may come ahead of its time, in seconds, exactly.

    Raises:
        InputError: It is not a number, or outside 1..600 s.
    """
    return _within(value, "--ahead", AHEAD_RANGE, f"{AHEAD_LIMITS} s", "30 is a good start.")


def parse_seconds(value: str | float | Fraction, option: str) -> Fraction:
    """Read a place in time or a length in seconds, exactly.

    Raises:
        InputError: It is not a number, or less than 0.
    """
    seconds = _fraction(value, option)
    if seconds < 0:
        raise InputError(f"{option} {value} is less than 0.", "Write seconds, like 2.5.")
    return seconds


def seconds_text(seconds: Fraction) -> str:
    """Seconds as they are read back: a decimal, or a fraction where a short decimal is not exact."""
    text = f"{float(seconds):g}"
    return text if Fraction(text) == seconds else str(seconds)


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


def parse_window(value: str | float | Fraction) -> Fraction:
    """Read the length of a window in seconds, exactly.

    Raises:
        InputError: It is not a number, or outside 3..30 s.
    """
    return _within(value, "--window", WINDOW_RANGE, f"{WINDOW_LIMITS} s", "Without it the model decides.")


def _within(
    value: str | float | Fraction,
    option: str,
    bounds: tuple[Fraction | int, Fraction | int],
    said: str,
    hint: str,
) -> Fraction:
    number = _fraction(value, option)
    if not bounds[0] <= number <= bounds[1]:
        raise InputError(f"{option} {value} is outside {said}.", hint)
    return number


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
        alignment: Which rows a frame hears; both are the same at 25 fps.
    """

    fps: Fraction
    alignment: Alignment = "frame"
    _frames: int = field(init=False, repr=False, compare=False)
    _seconds: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_frames", self.fps.numerator)
        object.__setattr__(self, "_seconds", self.fps.denominator)

    def frames_in(self, samples: int, sample_rate: int = SAMPLE_RATE) -> int:
        """Whole frames that `samples` of sound last."""
        return int(samples * self.fps // sample_rate)

    def frame_start(self, frame: int, sample_rate: int = SAMPLE_RATE) -> int:
        """The first whole sample of a frame, which owns all up to the first of the next."""
        return -(-frame * sample_rate * self._seconds // self._frames)

    def pts(self, frame: int) -> Fraction:
        """Seconds from the start of the stream to the start of a frame."""
        return Fraction(frame * self._seconds, self._frames)

    def source_frame(self, frame: int, source_fps: Fraction) -> int:
        """The frame of a source that is shown when a frame starts, counted from 0 on without an end."""
        return frame * self._seconds * source_fps.numerator // (self._frames * source_fps.denominator)

    def first_row(self, frame: int) -> int:
        """First of the `ROWS_PER_FRAME` encoder rows of a frame; rows below 0 are zero.

        With `r = floor(frame * 50 / fps)`, the row in which the frame starts, it is `r - 4`. The published
        code puts `ceil(50 / fps) * 2` zero rows in front and takes rows from `r` of all these on.
        """
        return frame * ROWS_PER_SECOND * self._seconds // self._frames - self._rows_before

    @property
    def _rows_before(self) -> int:
        if self.alignment == "frame":
            return ROWS_BEFORE
        return ceil_div(ROWS_PER_SECOND * self._seconds, self._frames) * PADDING_FRAMES

    def last_row(self, frame: int) -> int:
        """One past the last encoder row of a frame."""
        return self.first_row(frame) + ROWS_PER_FRAME

    def needed(self, frame: int) -> int:
        """Samples of a stream that goes on which suffice to compute a frame.

        Its rows must exist, and the sound must reach the end of the next frame: the last frame of a
        stream then always waits for the end, and takes the sound left over with it.
        """
        return max(self.last_row(frame) * SAMPLES_PER_ROW, self.frame_start(frame + 2))

    def complete(self, frame: int, samples: int) -> bool:
        """True once `samples` of a stream that goes on suffice to compute a frame."""
        return self.needed(frame) <= samples

    @property
    def look_ahead(self) -> Fraction:
        """Seconds from the start of a frame to where the sound it hears ends, at most.

        Its rows are counted from one that starts no later than the frame: 0.12 s at every rate, as trained.
        The published rows end elsewhere away from 25 fps, even before the frame's start: then it is negative.
        """
        return Fraction(ROWS_PER_FRAME - self._rows_before, ROWS_PER_SECOND)

    @property
    def wait(self) -> Fraction:
        """Seconds from the start of a frame to where the sound it waits for (`needed`) ends, at most.

        The look-ahead; where two frames last longer (below 17 fps) these, and a sample.
        """
        return max(self.look_ahead, 2 / self.fps + Fraction(1, SAMPLE_RATE))


def rows_in(samples: int) -> int:
    """Encoder rows that `samples` at 16 kHz give."""
    return samples // SAMPLES_PER_ROW


def mirrored(frame: int, count: int) -> int:
    """Source frame shown at `frame` when `count` forward frames loop forward, then backward.

    The period is `2 * count`: 0, 1, ..., count-1, count-1, ..., 1, 0.
    """
    step = frame % (2 * count)
    return step if step < count else 2 * count - 1 - step
