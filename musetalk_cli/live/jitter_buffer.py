"""When each frame of a live stream is shown: by the source's clock, after a delay that fits the machine.

A frame is due one chunk and the look-ahead after its own sound began to arrive, the earliest time that holds
for every frame, and a little later where the machine needs it. Two figures are taken from a short past:

- the source's offset, wall time minus the source's own time at the end of a chunk, at its smallest: delivery
  can be late but never early, and a source whose clock runs fast or slow takes the smallest along with it;
- the delay for computing, how much later than that frames were finished, at its largest, and never more than
  a chunk: what takes longer is late, and lateness never becomes delay.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction

from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Frame

PAST_S = 10.0
"""Over how much of the past both figures are taken."""
GAP_S = 1.0
"""A source that is later than this at once, or half a chunk, has stood still: its past says nothing any more.

The delay makes up for one chunk: half of it for a source that is late, half for computing.
"""
CATCH_UP = 0.02
"""How much faster than its rate a stream may be shown while its delay shrinks."""


class Smallest:
    """The smallest of the values of the last seconds, in memory for those that can still become it.

    Args:
        past_s: Seconds after which a value is forgotten.
    """

    def __init__(self, past_s: float = PAST_S) -> None:
        self._past_s = past_s
        self._values: deque[tuple[float, float]] = deque()

    def add(self, value: float, at: float) -> float:
        """Take a value at an ascending time; returns the smallest."""
        while self._values and self._values[-1][1] >= value:
            self._values.pop()
        self._values.append((at, value))
        while self._values[0][0] < at - self._past_s:
            self._values.popleft()
        return self._values[0][1]

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()


class PlayoutSchedule:
    """Says when frames are due.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        chunk: Seconds of sound per chunk.
    """

    def __init__(self, timeline: Timeline, chunk: Fraction) -> None:
        self._chunk = float(chunk)
        self._wait = float(chunk + timeline.wait)
        self._gap = min(GAP_S, self._chunk / 2)
        self._period = float((1 - Fraction(CATCH_UP)) / timeline.fps)
        self._offsets = Smallest()
        self._shortest = Smallest()
        self._offset = 0.0
        self._hop = -1
        self._last: float | None = None

    def due(self, frame: Frame) -> float:
        """Monotonic seconds at which a frame is due; frames must be asked for in order."""
        request = frame.request
        if request.hop != self._hop:
            self._hop = request.hop
            offset = request.ready - (request.hop + 1) * self._chunk
            if self._last is not None and offset > self._offset + self._gap:
                self._offsets.clear()
            self._offset = self._offsets.add(offset, request.ready)
        earliest = self._offset + frame.pts.numerator / frame.pts.denominator + self._wait
        computing = -self._shortest.add(earliest - frame.composited, request.ready)
        due = earliest + min(max(computing, 0.0), self._chunk)
        if self._last is not None:
            due = max(due, self._last + self._period)
        self._last = due
        return due
