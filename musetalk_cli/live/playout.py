"""Playout: when each frame of a stream is shown.

The delay of a stream, from a frame's place in its sound to the moment it is shown, is set where an utterance
begins and held to its end, so that nothing stumbles within a word; in silence, where nobody sees it, it moves
to what comes next. Sound comes in two ways, and one rule serves both:

- ahead of time, as from a synthesiser: nothing need be waited for, and an utterance is shown as soon as its
  first frame is there;
- as it is spoken: a frame can be made one hop and the look-ahead after its sound, so an utterance waits for
  that by the source's clock, which is the smallest of wall time minus the source's own time over a short past
  (a minimum filter: delivery can be late but never early). A source whose clock is off is followed.

Both wait besides for what the last utterances needed to compute, so that no frame comes after its time. What
one of them alone needed is a hiccup: it is a stall, and the next ones do not wait for it.
"""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import NamedTuple

from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Fate, Frame

PAST_S = 10.0
"""Over how much of the past the source's clock is taken."""
JITTER_S = 0.35
"""Sound whose delivery varies by more comes ahead of time, in bursts: it tells no clock."""
UTTERANCES = 3
"""How many of the last utterances say how long computing takes."""
MOST_S = 0.5
"""The most that the delay grows by what comes too late, or a hop where that is longer: the rest is late."""
DRIFT = 0.001
"""How much faster or slower than its rate speech may be shown, to follow a source's clock."""
HASTE = 0.25
"""How much faster than its rate silence may be shown while the delay shrinks."""


class MinimumFilter:
    """The smallest of the values of the last seconds, in memory for those that can still become it.

    Args:
        past_s: Seconds after which a value is forgotten.
    """

    def __init__(self, past_s: float = PAST_S) -> None:
        self._past_s = past_s
        self._values: deque[tuple[float, float]] = deque()

    @property
    def smallest(self) -> float | None:
        """The smallest, or None where there is none."""
        return self._values[0][1] if self._values else None

    def add(self, value: float, at: float) -> float:
        """Take a value at an ascending time; returns the smallest."""
        while self._values and self._values[-1][1] >= value:
            self._values.pop()
        self._values.append((at, value))
        while self._values[0][0] < at - self._past_s:
            self._values.popleft()
        return self._values[0][1]

    def shift(self, by: float) -> None:
        """Add to every value."""
        self._values = deque((at, value + by) for at, value in self._values)

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()


class SourceClock:
    """The clock of a source, recovered from when its sound arrived."""

    def __init__(self) -> None:
        self._smallest = MinimumFilter()
        self._largest = MinimumFilter()

    @property
    def offset(self) -> float | None:
        """Wall time minus the source's own time, in seconds; None where the sound tells no clock."""
        smallest, largest = self._smallest.smallest, self._largest.smallest
        if smallest is None or largest is None or -largest - smallest > JITTER_S:
            return None
        return smallest

    def arrived(self, end_s: float, at: float) -> None:
        """Sound came.

        Args:
            end_s: Seconds of the stream at its end.
            at: Monotonic seconds at which it was there.
        """
        self._smallest.add(at - end_s, at)
        self._largest.add(end_s - at, at)

    def moved(self, seconds: float) -> None:
        """What comes has a later place in the stream by so much: silence was put in before it."""
        self._smallest.shift(-seconds)
        self._largest.shift(seconds)

    def clear(self) -> None:
        """The source fell silent, or its time jumped: its past says nothing any more."""
        self._smallest.clear()
        self._largest.clear()


class Due(NamedTuple):
    """When a frame is shown.

    Attributes:
        at: Monotonic seconds at which it is.
        planned: Monotonic seconds at which it should have been, had it been made in time.
    """

    at: float
    planned: float


class PlayoutSchedule:
    """Says when frames are due. Used by one thread.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        chunk: Seconds of the longest hop.
        computing: Seconds from the sound of a hop to its first frames, as far as that is known beforehand.

    Attributes:
        source: The clock of the source.
        period: Seconds of one frame.
    """

    def __init__(self, timeline: Timeline, chunk: Fraction, computing: float = 0.0) -> None:
        self.source = SourceClock()
        self._computing = computing
        self.period = float(1 / timeline.fps)
        self._timeline = timeline
        self._wait = float(chunk + timeline.wait)
        self._most = max(float(chunk), MOST_S)
        self._needs: deque[float] = deque([computing], maxlen=UTTERANCES)
        self._need = 0.0
        self._utterance: int | None = None
        self._soonest = 0.0
        self._latest = 0.0
        self._last: tuple[int, float] | None = None
        self._front = -math.inf
        # when the last word is due, and in which epoch it was said
        self._spoken = -math.inf, 0

    @property
    def reserve(self) -> float:
        """Seconds that an utterance waits for computing: what the last ones needed, but for one hiccup."""
        return sorted(self._needs)[len(self._needs) // 2]

    @property
    def lead(self) -> float:
        """Seconds before a frame of an utterance is due at which making it must begin."""
        return min(self._computing, self.reserve)

    def due(self, frame: Frame) -> Due:
        """When a frame is due; frames must be asked for in order.

        A frame that begins an utterance may be due before the silent ones in front of it: these are passed
        over.
        """
        utterance = frame.request.utterance
        number = None if utterance is None else utterance.number
        index, composited = frame.request.index, frame.composited
        begins = number is not None and number != self._utterance
        if number != self._utterance and self._utterance is not None:
            self._needs.append(self._need)
        self._utterance = number
        if begins:
            due = self._begin(frame)
        else:
            slot = self.expected(index)
            planned = composited if slot is None else slot
            at = max(planned, composited)
            if number is None:
                at = max(at, self._front)
            else:
                at = min(at, max(planned, self._latest + float(frame.pts)))
                self._needs_for(frame)
            due = Due(at, planned)
        # silence that came late is caught up with; what is said keeps its pace
        late = 0.0 if number is not None else min(due.at - due.planned, self._most)
        self._last = index, due.at - late
        self._front = due.at
        if number is not None:
            self._spoken = due.at, frame.request.epoch
        return due

    def expected(self, index: int) -> float | None:
        """When a frame is due by its place alone; None where nothing was shown yet, and no clock is known."""
        soonest = self.soonest(index)
        wanted = None if soonest is None else soonest + self.reserve
        if self._last is None:
            return wanted
        last, due = self._last
        steps = (index - last) * self.period
        if wanted is None:
            return due + steps
        if self._utterance is None:
            # never slower: where more delay is needed, silence is put in
            return min(max(wanted, due + steps * (1 - HASTE)), due + steps)
        return min(max(wanted, due + steps * (1 - DRIFT)), due + steps * (1 + DRIFT))

    def soonest(self, index: int) -> float | None:
        """When all is there that a frame hears, by the source's clock; None where the sound tells none."""
        offset = self.source.offset
        return None if offset is None else offset + float(self._timeline.pts(index)) + self._wait

    def _begin(self, frame: Frame) -> Due:
        """The first frame of an utterance, which sets the delay."""
        index, pts = frame.request.index, float(frame.pts)
        by_clock = self.soonest(index)
        soonest = frame.request.ready if by_clock is None else max(frame.request.ready, by_clock)
        at = max(frame.composited, soonest + self.reserve)
        spoken, epoch = self._spoken
        # it may pass over silence, and over no word but one that was cut off
        if epoch == frame.request.epoch:
            at = max(at, spoken + self.period)
        self._soonest = soonest - pts
        self._latest = at - pts + self._most
        self._need = 0.0
        self._needs_for(frame)
        return Due(at, at)

    def _needs_for(self, frame: Frame) -> None:
        """Take note of how long after its soonest time a frame was made that had all its sound."""
        if frame.fate is Fate.SPEAKING and not frame.request.short:
            need = frame.composited - self._soonest - float(frame.pts)
            self._need = max(self._need, min(need, self._most))
