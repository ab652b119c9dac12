"""Sound to audio tokens, as a stream: whisper windows at the ends of hops.

A stream is cut from its start into hops, whatever the size of the blocks that arrive. At the end of each
hop one encoder window gives rows, and every frame whose rows exist gets its tokens. Whole-file features
are the same stream with hops of 30 s and no past context: upstream's segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

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
        samples: float32 `[n]` at 16 kHz, up to the end of the hop.
        first_row: Row of the stream at which the window starts.
        end_row: One past the last row the stream has at the end of the hop.
    """

    samples: Samples
    first_row: int
    end_row: int


@dataclass(frozen=True, slots=True)
class Hop:
    """The end of a hop.

    Attributes:
        number: From 0.
        end: Samples of the stream at its end.
        final: True for the last one, which ends with the stream.
    """

    number: int
    end: int
    final: bool


class HopCutter:
    """Cuts a stream at 16 kHz into hops and their windows, and forgets what no window needs any more.

    Args:
        hop: Seconds per hop, at most 30.
        context: Seconds of past sound before a hop that its window holds; None is as much as fits.
        rows: Rows of a window.
    """

    def __init__(self, hop: Fraction, context: Fraction | None = None, rows: int = ROWS_PER_WINDOW) -> None:
        self._rows = rows
        self._hop = hop * SAMPLE_RATE
        self._context = None if context is None else ceil_div(context * SAMPLE_RATE, SAMPLES_PER_ROW)
        self._blocks: list[Samples] = []
        self._start = 0
        self._total = 0
        self._ended = False
        self._number = 0
        self._given_rows = 0
        self._final_taken = False

    def append(self, samples: Samples) -> None:
        """Append float32 `[n]`."""
        self._blocks.append(samples)
        self._total += len(samples)

    def end(self) -> None:
        """End the stream: what is left is the last hop."""
        self._ended = True

    def mute(self, next_row: int) -> None:
        """Forget what the held sound said, but not how long it was; rows from `next_row` on come again."""
        self._blocks = [np.zeros(self._total - self._start, np.float32)]
        self._given_rows = next_row

    @property
    def total(self) -> int:
        """Samples fed so far."""
        return self._total

    @property
    def done(self) -> bool:
        """True once the last hop was taken."""
        return self._final_taken

    def _next_end(self) -> int:
        return int((self._number + 1) * self._hop)

    def due(self) -> Hop | None:
        """The next hop if its sound is complete; the same one until `take` or `skip` is called."""
        end = self._next_end()
        if self._total >= end and not (self._ended and self._total == end):
            return Hop(self._number, end, final=False)
        if self._ended and not self._final_taken:
            return Hop(self._number, self._total, final=True)
        return None

    def take(self, hop: Hop, next_row: int) -> Window | None:
        """Move past a due hop.

        Args:
            hop: What `due` said.
            next_row: First row that frames of later hops need.

        Returns:
            Its window, or None where it brings no new row to a stream that has some.
        """
        new_row, end_row = self._given_rows, rows_in(hop.end)
        first = max(0, ceil_div(hop.end, SAMPLES_PER_ROW) - self._rows)
        if self._context is not None:
            first = max(first, new_row - self._context)
        first = min(first, new_row)
        begin = first * SAMPLES_PER_ROW
        held = np.concatenate([np.zeros(0, np.float32), *self._blocks])
        window = Window(held[begin - self._start : hop.end - self._start], first, end_row)
        fresh = end_row > self._given_rows or hop.number == 0
        self._given_rows = end_row
        self._pass(hop, held, next_row)
        return window if fresh else None

    def skip(self, hop: Hop, next_row: int) -> None:
        """Move past a due hop whose frames need no features; `next_row` as in `take`."""
        # rows that no frame needs count as given, so that the next window may begin after them
        self._given_rows = max(self._given_rows, next_row)
        self._pass(hop, np.concatenate([np.zeros(0, np.float32), *self._blocks]), next_row)

    def _pass(self, hop: Hop, held: Samples, next_row: int) -> None:
        """Hold on to the samples from the earliest start of the next window."""
        self._number += 1
        self._final_taken = hop.final
        row = rows_in(hop.end)
        rows = self._rows if self._context is None else self._context
        start = max(self._start, (min(row, next_row) - rows) * SAMPLES_PER_ROW)
        # a view would keep all of the sound in memory
        self._blocks = [held[start - self._start :].copy()]
        self._start = start


class FeatureStream:
    """Tokens of one stream's frames, hop by hop.

    A frame's rows come from the newest window that holds them, so they have heard what follows as far as
    it is known; they depend on the sound and the settings alone, never on how the sound was delivered.

    Args:
        encode: Windows to rows.
        timeline: Index arithmetic at the stream's frame rate.
        hop: Seconds per hop.
        context: Seconds of past sound in a window; None is as much as fits.
        window_rows: Rows of a window; one whose frames need more is longer.
    """

    def __init__(
        self,
        encode: Encode,
        timeline: Timeline,
        hop: Fraction,
        context: Fraction | None = None,
        window_rows: int = ROWS_PER_WINDOW,
    ) -> None:
        self.cutter = HopCutter(hop, context, window_rows)
        self._window_rows = window_rows
        self._encode = encode
        self._timeline = timeline
        self._rows: Tensor | None = None
        self._rows_start = 0
        self._next_frame = 0

    def frames(self, hop: Hop) -> range:
        """The frames that a due hop makes computable."""
        first = last = self._next_frame
        if hop.final:
            return range(first, max(first, self._timeline.frames_in(hop.end)))
        while self._timeline.complete(last, hop.end):
            last += 1
        return range(first, last)

    def advance(self, hop: Hop, frames: range) -> list[Tensor]:
        """Encode a due hop; the tokens `[10 * layers, width]` of each of its frames."""
        window = self.cutter.take(hop, self._first_row(frames.stop))
        for part in [] if window is None else _fitting(window):
            self._append(part)
        self._next_frame = frames.stop
        return self._tokens(frames, rows_in(hop.end))

    def skip(self, hop: Hop, frames: range) -> None:
        """Move past a due hop whose frames are not made."""
        self.cutter.skip(hop, self._first_row(frames.stop))
        self._next_frame = frames.stop

    def mute(self) -> None:
        """Forget what the sound so far said: what is computed from here on has heard nothing of it."""
        self.cutter.mute(self._first_row(self._next_frame))
        self._rows = None

    def _first_row(self, frame: int) -> int:
        return max(0, self._timeline.first_row(frame))

    def _append(self, window: Window) -> None:
        """Take over a window's rows in place of older ones, from the first that a frame still needs."""
        needed = self._first_row(self._next_frame)
        begin = min(max(needed, window.first_row), window.end_row)
        rows = range(begin - window.first_row, window.end_row - window.first_row)
        length = max(self._window_rows, rows.stop)
        (fresh,) = self._encode([EncodeRequest(window.samples, rows, length)])
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


def _fitting(window: Window) -> list[Window]:
    """A window, or two in its place where it has more rows than the encoder gives at once.

    After a hop of 30 s that was skipped, a window also holds the few rows before its own hop that frames at
    its start need. The later of the two is what it would have been had nothing been skipped.
    """
    over = window.end_row - window.first_row - ROWS_PER_WINDOW
    if over <= 0:
        return [window]
    middle = window.first_row + over
    early = Window(window.samples[:WINDOW_SAMPLES], window.first_row, window.first_row + ROWS_PER_WINDOW)
    return [early, Window(window.samples[over * SAMPLES_PER_ROW :], middle, window.end_row)]
