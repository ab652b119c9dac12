"""Statistics of stages, taken from outside.

Stages do not know that they are timed. On a CUDA device a span is a pair of events that is read long
after it was recorded, so measuring never waits for the device.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.clock import Clock, MonotonicClock
from musetalk_cli.errors import is_device_lost
from musetalk_cli.measure.trace import Anchor, DeviceTrack, Trace

if TYPE_CHECKING:
    import torch


KEPT = 1 << 16
"""Durations of one kind that are kept: half a megabyte."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """The three figures a latency is quoted with, in milliseconds."""

    p50: float
    p95: float
    p99: float

    @property
    def is_measured(self) -> bool:
        """False where there was nothing to measure: no latency of a stream is zero."""
        return max(self.p50, self.p95, self.p99) > 0

    @classmethod
    def of(cls, seconds: Sequence[float] | NDArray[np.float64]) -> Percentiles:
        """Percentiles of durations in seconds; all zero where there are none."""
        if not len(seconds):
            return cls(0.0, 0.0, 0.0)
        p50, p95, p99 = (float(value) * 1e3 for value in np.percentile(seconds, (50, 95, 99)))
        return cls(p50, p95, p99)


class Figures:
    """Durations of one kind over a run of any length, in flat memory; safe to use from several threads.

    Up to `KEPT` of them are kept as they are, and from then on a uniform sample of that size (Vitter's
    algorithm R). The rank of its quantile p then has a standard deviation of sqrt(p (1 - p) / KEPT), however
    many there are: what is told as p99 lies between the 98.9th and the 99.1st percentile.

    Attributes:
        total: Sum of all durations in seconds.
        largest: Longest of all durations in seconds; 0 where there are none.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.largest = 0.0
        self._count = 0
        self._kept = array("d")
        self._random = np.random.default_rng(0).random
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """All durations so far, kept or not."""
        return self._count

    def append(self, seconds: float) -> None:
        """Take one duration."""
        with self._lock:
            self._count += 1
            self.total += seconds
            self.largest = max(self.largest, seconds)
            if self._count <= KEPT:
                self._kept.append(seconds)
            elif (place := int(self._random() * self._count)) < KEPT:
                self._kept[place] = seconds

    def sample(self) -> NDArray[np.float64]:
        """A copy of the durations that are kept, in seconds: all of them, or a uniform sample of `KEPT`."""
        with self._lock:
            return np.array(self._kept)

    def percentiles(self) -> Percentiles:
        """Percentiles of the durations so far."""
        return Percentiles.of(self.sample())


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What one stage took over a run: calls, percentiles and the sum in milliseconds."""

    count: int
    times: Percentiles
    total_ms: float


class _Pending(NamedTuple):
    """A span between two events that the device may not have passed yet."""

    stage: str
    start: torch.cuda.Event
    end: torch.cuda.Event
    anchor: Anchor | None


@dataclass(slots=True)
class StageStats:
    """Durations by stage; safe to use from several threads.

    Attributes:
        clock: Where host time comes from.
        device: A CUDA device whose stages are timed by events, or None.
        trace: Where every span is told, or None.
    """

    clock: Clock = field(default_factory=MonotonicClock)
    device: torch.device | None = None
    trace: Trace | None = None
    _figures: dict[str, Figures] = field(default_factory=dict)
    _pending: list[_Pending] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _track: DeviceTrack | None = None

    def __post_init__(self) -> None:
        if self.device is not None and self.trace is not None:
            self._track = DeviceTrack(self.trace, self.device, self.clock.now)

    @contextmanager
    def span(self, stage: str) -> Iterator[None]:
        """Time a block on the host."""
        start = self.clock.now()
        yield
        took = self.clock.now() - start
        self.add(stage, took)
        if self.trace is not None:
            self.trace.span(stage, start, took)

    @contextmanager
    def device_span(self, stage: str) -> Iterator[None]:
        """Time a block on the device; the same as `span` where there is no CUDA device."""
        if self.device is None:
            with self.span(stage):
                yield
            return
        import torch

        anchor = None if self._track is None else self._track.anchor()
        start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        stream = torch.cuda.current_stream(self.device)
        start.record(stream)
        yield
        end.record(stream)
        with self._lock:
            self._pending.append(_Pending(stage, start, end, anchor))

    def add(self, stage: str, seconds: float) -> None:
        """Record one duration."""
        with self._lock:
            self._figures_of(stage).append(seconds)

    def clear(self) -> None:
        """Forget everything, after a warm-up."""
        with self._lock:
            self._figures.clear()
            self._pending.clear()

    def collect(self) -> None:
        """Read the event pairs the device has finished, without waiting for it."""
        with self._lock, self._unless_lost():
            while self._pending and self._pending[0].end.query():  # type: ignore[no-untyped-call]
                stage, start, end, anchor = self._pending.pop(0)
                self._figures_of(stage).append(start.elapsed_time(end) / 1e3)
                if self._track is not None and anchor is not None:
                    self._track.span(stage, anchor, start, end)

    def summary(self, order: Sequence[str]) -> dict[str, StageSummary]:
        """Every stage seen so far, those named in `order` first."""
        with self._lock, self._unless_lost():
            if self._pending:
                self._pending[-1].end.synchronize()
        self.collect()
        with self._lock:
            names = [name for name in order if name in self._figures]
            names += [name for name in self._figures if name not in order]
            return {
                name: StageSummary(figures.count, figures.percentiles(), figures.total * 1e3)
                for name, figures in ((name, self._figures[name]) for name in names)
            }

    @contextmanager
    def _unless_lost(self) -> Iterator[None]:
        """What a device did that has failed since is not told; what was read before is kept."""
        try:
            yield
        except RuntimeError as error:
            if not is_device_lost(error):
                raise
            self._pending.clear()

    def _figures_of(self, stage: str) -> Figures:
        if stage not in self._figures:
            self._figures[stage] = Figures()
        return self._figures[stage]
