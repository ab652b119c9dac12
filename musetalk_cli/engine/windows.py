"""Sound to audio tokens, as a stream: whisper windows at the ends of hops.

At the end of each hop one encoder window gives rows, and every frame of the hop gets its tokens from them.
Whole-file features are the same stream with hops of 30 s and no past context: upstream's segments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.nets.audio_encoder import EncodeRequest
from musetalk_cli.timeline import (
    ROWS_PER_FRAME,
    ROWS_PER_WINDOW,
    SAMPLE_RATE,
    SAMPLES_PER_ROW,
    WINDOW_SAMPLES,
    Timeline,
    ceil_div,
    rows_in,
)
from musetalk_cli.types import Samples

Encode = Callable[[Sequence[EncodeRequest]], list[Tensor]]
"""Windows to their needed rows, float32 `[rows, layers, width]` each, as `AudioEncoder` does."""
OFFLINE_HOP = Fraction(WINDOW_SAMPLES, SAMPLE_RATE)
"""Seconds per hop of a whole file: one window."""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """One encoder window of a stream.

    Attributes:
        samples: float32 `[n]` at 16 kHz.
        first_row: Row of the stream at which the window starts.
        end_row: One past the last whole row in it.
    """

    samples: Samples
    first_row: int
    end_row: int


class WindowCutter:
    """Cuts windows out of a stream at 16 kHz, and forgets what no window needs any more.

    Args:
        context: Seconds of past sound before a hop that its window holds; None is as much as fits.
        rows: Rows that a window has at the most.
    """

    def __init__(self, context: Fraction | None = None, rows: int = ROWS_PER_WINDOW) -> None:
        self._context = None if context is None else ceil_div(context * SAMPLE_RATE, SAMPLES_PER_ROW)
        self._rows = rows
        self._blocks: list[Samples] = []
        self._start = 0
        self._total = 0
        self._given_rows = 0

    @property
    def total(self) -> int:
        """Samples heard so far."""
        return self._total

    def append(self, samples: Samples) -> None:
        """Append float32 `[n]`."""
        self._blocks.append(samples)
        self._total += len(samples)

    def mute(self, next_row: int) -> None:
        """Forget what the held sound said, but not how long it was; rows from `next_row` on come again."""
        self._blocks = [np.zeros(self._total - self._start, np.float32)]
        self._given_rows = next_row

    def cut(self, begin: int, end: int, first_row: int) -> list[Window]:
        """The windows of a hop, in ascending order.

        One, but where frames at its start need more rows than a window has, since the hop before it was
        silent and has none: then others before the one that ends with the hop.

        Args:
            begin: Samples of the stream at the begin of the hop.
            end: Samples of the stream at its end.
            first_row: First row that its frames need.
        """
        # of what was silent no row was given, and the window is what it would be had it been
        given = max(self._given_rows, min(first_row, rows_in(begin)))
        fits = max(0, ceil_div(end, SAMPLES_PER_ROW) - self._rows)
        start = fits if self._context is None else max(fits, given - self._context)
        first = min(start, given)
        self._given_rows = rows_in(end)
        before = range(first, fits, self._rows)
        ends = [(number + self._rows) * SAMPLES_PER_ROW for number in before]
        return [*map(self._window, before, ends), self._window(max(first, fits), end)]

    def forget(self, begin: int, next_row: int) -> None:
        """Let go of what no window needs of hops from `begin` on, and of frames from row `next_row` on."""
        rows = self._rows if self._context is None else self._context
        start = max(self._start, (min(rows_in(begin), next_row) - rows) * SAMPLES_PER_ROW)
        if start >= self._start + SAMPLE_RATE:  # in whole seconds, since each costs a copy of what is held
            held = np.concatenate(self._blocks)
            self._blocks = [held[start - self._start :].copy()]
            self._start = start

    def _window(self, first: int, end: int) -> Window:
        if len(self._blocks) != 1:
            self._blocks = [np.concatenate([np.zeros(0, np.float32), *self._blocks])]
        begin = first * SAMPLES_PER_ROW
        samples = self._blocks[0][begin - self._start : end - self._start]
        return Window(samples, first, rows_in(end))


class _Asked(NamedTuple):
    """A hop whose windows are being encoded.

    Attributes:
        frames: Its frames.
        end_row: One past the last row that they have heard.
        windows: Its windows, ascending.
    """

    frames: range
    end_row: int
    windows: Sequence[Window]


class FeatureStream:
    """Tokens of one stream's frames, hop by hop: `ask` says what is to be encoded, `give` what that gave.

    So hops of many streams can be encoded together. A frame's rows come from the newest window that holds
    them, so they have heard what follows as far as it is known; they depend on the sound and on where hops
    end, never on how the sound was delivered.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        context: Seconds of past sound in a window; None is as much as fits.
        window_rows: Rows of a window.
    """

    def __init__(
        self, timeline: Timeline, context: Fraction | None = None, window_rows: int = ROWS_PER_WINDOW
    ) -> None:
        self._cutter = WindowCutter(context, window_rows)
        self._window_rows = window_rows
        self._timeline = timeline
        self._asked: deque[_Asked] = deque()
        self._asked_rows = 0
        self._rows: Tensor | None = None
        self._rows_start = 0
        self._next_frame = 0

    @property
    def total(self) -> int:
        """Samples at 16 kHz heard so far."""
        return self._cutter.total

    def append(self, samples: Samples) -> None:
        """Append float32 `[n]` at 16 kHz."""
        self._cutter.append(samples)

    def ask(self, frames: range, begin: int, end: int) -> list[EncodeRequest]:
        """What is to be encoded for the next frames; nothing where their rows are known.

        Args:
            frames: The next frames.
            begin: Samples of the stream at the begin of their hop.
            end: Samples of the stream that they have heard; rows after these are zero.
        """
        windows, needed = self._cut(frames, begin, end), self._first_row(frames.start)
        self._asked.append(_Asked(frames, rows_in(end), windows))
        self._pass(frames, end)
        return [self._request(window, needed) for window in windows]

    def give(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """The tokens `[10 * layers, width]` of each of the frames that were asked for first.

        Args:
            rows: What `AudioEncoder` gave for each of their requests.
        """
        frames, end_row, windows = self._asked.popleft()
        needed = self._first_row(frames.start)
        for window, fresh in zip(windows, rows, strict=True):
            self._take_over(window, fresh, needed)
        return self._tokens(frames, end_row)

    def leave_out(self, frames: range, begin: int, end: int) -> None:
        """Move past frames as `ask` does, where nobody wants their tokens: later windows are the same."""
        self._cut(frames, begin, end)
        self._pass(frames, end)

    def skip(self, frames: range, begin: int) -> None:
        """Move past frames that are not made, of a hop that begins with sample `begin` of the stream."""
        self._pass(frames, begin)

    def mute(self) -> None:
        """Forget what the sound so far said: what is computed from here on has heard nothing of it."""
        self._cutter.mute(self._first_row(self._next_frame))
        self._rows = None
        self._asked_rows = 0

    def _cut(self, frames: range, begin: int, end: int) -> Sequence[Window]:
        """The windows that give rows which were not asked for yet."""
        if 0 < self._asked_rows >= rows_in(end):
            return ()
        self._asked_rows = rows_in(end)
        return self._cutter.cut(begin, end, self._first_row(frames.start))

    def _pass(self, frames: range, begin: int) -> None:
        self._next_frame = frames.stop
        self._cutter.forget(begin, self._first_row(frames.stop))

    def _first_row(self, frame: int) -> int:
        return max(0, self._timeline.first_row(frame))

    def _request(self, window: Window, needed: int) -> EncodeRequest:
        begin = _begin(window, needed)
        rows = range(begin - window.first_row, window.end_row - window.first_row)
        return EncodeRequest(window.samples, rows, self._window_rows)

    def _take_over(self, window: Window, fresh: Tensor, needed: int) -> None:
        """Take over a window's rows in place of older ones, from the first that a frame still needs."""
        begin = _begin(window, needed)
        if self._rows is not None and needed < begin:
            old = self._rows[needed - self._rows_start : begin - self._rows_start]
            begin -= len(old)
            fresh = torch.cat([old, fresh])
        self._rows_start, self._rows = begin, fresh

    def _tokens(self, frames: range, rows: int) -> list[Tensor]:
        """Views of one padded tensor, since neighbouring frames share most of their rows."""
        if not frames or self._rows is None:
            return []
        low, high = self._timeline.first_row(frames[0]), self._timeline.last_row(frames[-1])
        # zeros stand for the rows before the stream begins and after it ends, as in the published code
        padded = self._rows.new_zeros(high - low, *self._rows.shape[1:])
        begin, end = max(low, self._rows_start), min(high, rows)
        if end > begin:
            padded[begin - low : end - low] = self._rows[begin - self._rows_start : end - self._rows_start]
        starts = [self._timeline.first_row(frame) - low for frame in frames]
        return [padded[start : start + ROWS_PER_FRAME].flatten(0, 1) for start in starts]


def _begin(window: Window, needed: int) -> int:
    """The first row of a window that frames need which need rows from `needed` on."""
    return min(max(needed, window.first_row), window.end_row)
