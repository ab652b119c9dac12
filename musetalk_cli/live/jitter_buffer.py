"""Jitter buffer with minimum-filter clock recovery: finished frames wait in it until they are due.

A frame is due one chunk and the look-ahead after its own sound began to arrive, the earliest time that holds
for every frame, and a little later where the machine needs it. Two figures are taken from a short past:

- the source's offset: wall time minus the source's own time at the end of a hop, at its smallest. Delivery
  can be late but never early, so the smallest is the source's clock, also where that runs fast or slow;
- the delay for computing: how long after that frames were finished, at its largest, and never more than a
  chunk. What takes longer is late, and lateness never becomes delay.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction

from musetalk_cli.clock import Clock
from musetalk_cli.handoff import Handoff
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


class MinimumFilter:
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
        chunk: Seconds of sound per hop.

    Attributes:
        period: Seconds of one frame.
    """

    def __init__(self, timeline: Timeline, chunk: Fraction) -> None:
        self._chunk = float(chunk)
        self._wait = float(chunk + timeline.wait)
        self._gap = min(GAP_S, self._chunk / 2)
        self.period = float(1 / timeline.fps)
        self._shortest_period = float((1 - Fraction(CATCH_UP)) / timeline.fps)
        self._offsets = MinimumFilter()
        self._shortest = MinimumFilter()
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
                self._offsets.clear()  # after a standstill the smallest offset of before is out of reach
            self._offset = self._offsets.add(offset, request.ready)
        earliest = self._offset + frame.pts.numerator / frame.pts.denominator + self._wait
        computing = -self._shortest.add(earliest - frame.composited, request.ready)
        due = earliest + min(max(computing, 0.0), self._chunk)
        if self._last is not None:
            # the delay may shrink, but never so that frames follow each other faster than an eye accepts
            due = max(due, self._last + self._shortest_period)
        self._last = due
        return due


class JitterBuffer:
    """Holds finished frames between the device loop, which never waits, and presentation, which does.

    Args:
        capacity: Frames it holds.
        clock: Where time comes from.
        schedule: When frames are due; None gives each as soon as it is there.
        stalled: Told of a frame that comes more than a frame after it was due, where the one before did not.
    """

    def __init__(
        self, capacity: int, clock: Clock, schedule: PlayoutSchedule | None, stalled: Callable[[Frame], None]
    ) -> None:
        self._frames: Handoff[Frame] = Handoff(capacity)
        self._capacity = capacity
        self._stalled = stalled
        self._behind = False
        self._clock = clock
        self._schedule = schedule
        self._hurry = threading.Event()

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return self._frames.waiting

    @property
    def has_room(self) -> bool:
        """True where a frame can be added; only whoever adds them can make that untrue."""
        return self._frames.waiting < self._capacity

    def offer(self, frame: Frame) -> bool:
        """Add a frame without waiting; False where there is no room.

        Raises:
            HandoffClosed: The buffer was closed.
            BaseException: The error it was closed with.
        """
        return self._frames.offer(frame)

    def hurry(self) -> None:
        """Give what is left without waiting for its time: the stream was stopped."""
        self._hurry.set()

    def close(self, error: BaseException | None = None) -> None:
        """End it: what is inside is still given, unless `error` is given."""
        if error is not None:
            self._hurry.set()
        self._frames.close(error)

    def __iter__(self) -> Iterator[tuple[Frame, float | None]]:
        """Yield each frame when it is due, and that time if it has one, until the buffer is closed and empty.

        Raises:
            BaseException: The error it was closed with.
        """
        for frame in self._frames:
            due = None
            if self._schedule is not None:
                due = self._schedule.due(frame)
                remaining = due - self._clock.now()
                stalls = remaining < -self._schedule.period
                if stalls and not self._behind:
                    self._stalled(frame)
                self._behind = stalls
                if remaining > 0 and not self._hurry.is_set():
                    self._clock.wait(remaining, self._hurry)
            self._frames.raise_error()  # it may have been closed while this frame waited for its time
            yield frame, due
