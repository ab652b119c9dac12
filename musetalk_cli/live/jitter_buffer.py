"""Jitter buffer: finished frames wait in it until they are due."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from musetalk_cli.clock import Clock
from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.live.playout import Due, PlayoutSchedule
from musetalk_cli.types import Fate, Frame

CUT_OFF = 3
"""How many times its capacity the buffer holds where interrupts follow each other."""


class JitterBuffer:
    """Holds finished frames between the device loop, which never waits, and presentation, which does.

    Args:
        capacity: Frames it holds.
        clock: Where time comes from.
        schedule: When frames are due; None gives each as soon as it is there.
        stalled: Told of a frame in the middle of an utterance that comes more than a frame after it was due,
            where the one before did not.
    """

    def __init__(
        self, capacity: int, clock: Clock, schedule: PlayoutSchedule | None, stalled: Callable[[Frame], None]
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._schedule = schedule
        self._stalled = stalled
        self._frames: deque[tuple[Frame, Due | None]] = deque()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._behind = False
        self._hurries = False
        self._closed = False
        self._error: BaseException | None = None

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._frames)

    @property
    def ahead(self) -> int:
        """Frames of an utterance that wait."""
        with self._lock:
            return sum(frame.request.utterance is not None for frame, _ in self._frames)

    def has_room(self, epoch: int) -> bool:
        """True where a frame can be added; only whoever adds them can make that untrue.

        What an interrupt has cut off takes no room from what comes after it, within a bound.

        Args:
            epoch: How many interrupts there were.
        """
        with self._lock:
            counted = sum(frame.request.epoch == epoch for frame, _ in self._frames)
            return counted < self._capacity and len(self._frames) < CUT_OFF * self._capacity

    @property
    def next_at(self) -> float | None:
        """Monotonic seconds at which the next frame is to be shown; None where none waits.

        A frame that begins an utterance may be due before silent ones in front of it: these are then shown
        no later than that one.
        """
        with self._lock:
            if not self._frames:
                return None
            if self._hurries:
                return -math.inf
            return min(-math.inf if due is None else due.at for _, due in self._frames)

    def add(self, frame: Frame) -> None:
        """Add a frame, for which there is room; when it is due is settled here.

        Raises:
            HandoffClosed: The buffer was closed.
            BaseException: The error it was closed with.
        """
        if self._closed:
            raise self._error or HandoffClosed
        due = None if self._schedule is None else self._schedule.due(frame)
        with self._lock:
            self._frames.append((frame, due))
        self._woken.set()

    def take(self, now: float) -> tuple[Frame, float | None]:
        """Take the next frame at a time, to show it.

        Returns:
            The frame, marked where it is silent and an utterance passes over it; and when it should have been
            shown, had it been made in time, None where it has none.
        """
        with self._lock:
            frame, due = self._frames.popleft()
        if self._schedule is None or due is None:
            return frame, None
        if frame.request.utterance is None and now < due.at and not self._hurries:
            frame = replace(frame, passed_over=True)
        in_middle = frame.fate in {Fate.SPEAKING, Fate.HELD} and not frame.request.short
        stalls = in_middle and now > due.planned + self._schedule.period
        if stalls and not self._behind:
            self._stalled(frame)
        self._behind = stalls
        return frame, due.planned

    def hurry(self) -> None:
        """Give what is left without waiting for its time: the stream was stopped."""
        self._hurries = True
        self._woken.set()

    def close(self, error: BaseException | None = None) -> None:
        """End it: what is inside is still given, unless `error` is given. The first error stays."""
        self._error = self._error or error
        self._closed = True
        self._woken.set()

    def __iter__(self) -> Iterator[tuple[Frame, float | None]]:
        """Yield each frame when it is due, as `take` gives it, until the buffer is closed and empty.

        Raises:
            BaseException: The error it was closed with.
        """
        while True:
            # before what it tells of is looked at, so that nothing is missed
            self._woken.clear()
            if self._error is not None:
                raise self._error
            at = self.next_at
            if at is None and self._closed:
                return
            if at is None:
                self._woken.wait()
            elif (remaining := at - self._clock.now()) > 0:
                self._clock.wait(remaining, self._woken)
            else:
                yield self.take(self._clock.now())
