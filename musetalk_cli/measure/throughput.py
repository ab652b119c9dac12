"""How fast the stages of a preparation are, taken from outside while they work."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from musetalk_cli.clock import Clock, MonotonicClock

Item = TypeVar("Item")


@dataclass(slots=True)
class _Work:
    """What a stage did: spans that are open, when that last changed, frames, and seconds with one open."""

    open_spans: int = 0
    changed: float = 0.0
    frames: int = 0
    seconds: float = 0.0

    def change(self, now: float, by: int) -> None:
        """Open or close a span."""
        if self.open_spans:
            self.seconds += now - self.changed
        self.changed = now
        self.open_spans += by


class StageRates:
    """Frames a second of each stage while it is at work, waiting left out; safe to use from several threads.

    Time in which several threads work on the same stage counts once: the rate is that of the stage.

    Args:
        clock: Where time comes from.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._done: dict[str, _Work] = {}
        self._lock = threading.Lock()

    @contextmanager
    def span(self, stage: str, frames: int = 1) -> Iterator[None]:
        """Time the work of a stage on some frames; where it fails, they do not count."""
        with self._lock:
            work = self._done.setdefault(stage, _Work())
            work.change(self._clock.now(), 1)
        done = 0
        try:
            yield
            done = frames
        finally:
            with self._lock:
                work.change(self._clock.now(), -1)
                work.frames += done

    def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, timing how long each takes to come."""
        coming = iter(items)
        while True:
            try:
                with self.span(stage):
                    item = next(coming)
            except StopIteration:
                return
            yield item

    def rates(self) -> dict[str, float]:
        """Frames a second by stage, in the order in which they began."""
        with self._lock:
            return {
                stage: work.frames / work.seconds
                for stage, work in self._done.items()
                if work.frames and work.seconds > 0
            }
