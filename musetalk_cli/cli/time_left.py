"""Remaining time of a piece of work, estimated from its own rate."""

from __future__ import annotations

import math

KNOWN_AFTER_S, KNOWN_AFTER_ITEMS = 1.0, 3
"""Nothing is estimated from less than this: the first items wait for what is loaded and warmed up."""
SMOOTHED_S = 10.0
"""Time constant of the exponential moving average of the rate, in seconds."""


class TimeLeft:
    """Estimate the rate of a piece of work, and with it the time left.

    Items that were done before the first call, as after a resumed run, do not count. Where items are lost, as
    with a worker of a batch, it goes on from there at the rate that was known.

    Attributes:
        rate: Items a second, smoothed; None until it is known.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self._first: tuple[int, float] | None = None
        self._last = (0, 0.0)

    def update(self, done: int, now: float) -> None:
        """Take in that `done` items are done at `now`, in seconds of a monotonic clock."""
        if self._first is None:
            self._first = self._last = (done, now)
            return
        if done < self._last[0]:
            self._first = self._last = (done, now)
            return
        elapsed = now - self._last[1]
        if self.rate is not None and elapsed > 0:
            weight = -math.expm1(-elapsed / SMOOTHED_S)
            self.rate += weight * ((done - self._last[0]) / elapsed - self.rate)
        self._last = (done, now)
        items, seconds = done - self._first[0], now - self._first[1]
        if self.rate is None and items >= KNOWN_AFTER_ITEMS and seconds >= KNOWN_AFTER_S:
            self.rate = items / seconds

    def text(self, total: int | None) -> str:
        """Like `0:01:30 left`; empty while the rate or the total is not known."""
        if not self.rate or total is None:
            return ""
        return f"{in_hours(max(total - self._last[0], 0) / self.rate)} left"


def in_hours(seconds: float) -> str:
    """A duration as h:mm:ss, in whole seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
