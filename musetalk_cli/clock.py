"""Monotonic time that a test can own, and the pacer that holds a stream to its schedule."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Monotonic time that a test can own."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""

    def wait(self, seconds: float, wake: threading.Event) -> bool:
        """Wait that long or until `wake` is set; True if it was set."""


class MonotonicClock:
    """The system's monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return time.perf_counter()

    def wait(self, seconds: float, wake: threading.Event) -> bool:
        """Wait that long or until `wake` is set; True if it was set."""
        return wake.wait(max(0.0, seconds))


@dataclass(slots=True)
class Pacer:
    """Holds a stream to its schedule: item `n` is due at `start + n / rate`, whatever came before.

    Attributes:
        clock: Where time comes from.
        rate: Items per second.
        start: Clock time of item 0; the first call of `wait_for` sets it.
    """

    clock: Clock
    rate: float
    start: float | None = None

    def wait_for(self, item: int, wake: threading.Event) -> float:
        """Wait until `item` is due or `wake` is set; returns the time it was due."""
        if self.start is None:
            self.start = self.clock.now()
        due = self.start + item / self.rate
        remaining = due - self.clock.now()
        if remaining > 0:
            self.clock.wait(remaining, wake)
        return due
