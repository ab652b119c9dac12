"""A stream by the length of its chunks, as fast as it goes, beside the published order of work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.published import PublishedFrames, published_chunk
from musetalk_cli.bench.stages import Stages
from musetalk_cli.bench.stream import speak_synthetic
from musetalk_cli.bench.synthetic import SyntheticSource, synthetic_sound
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.measure.stages import Percentiles
from musetalk_cli.run.report import Report
from musetalk_cli.timeline import SAMPLE_RATE, ceil_div

MOST_CHUNKS = 200
"""Chunks of the published order that are timed at the most."""


@dataclass(frozen=True, slots=True)
class PublishedChunks:
    """Chunks in the published order of work.

    Attributes:
        count: How many were timed.
        first_frame_ms: From a complete chunk to its first frame in host memory.
        last_frame_ms: From a complete chunk to its last frame in host memory.
    """

    count: int
    first_frame_ms: Percentiles
    last_frame_ms: Percentiles


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """One length of chunk.

    Attributes:
        report: Of a stream through the engine's own loop, as fast as it goes.
        published: The same chunks in the published order of work; None where that was left out.
    """

    report: Report
    published: PublishedChunks | None

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values: those of the report, and the published order's."""
        published = None if self.published is None else dataclasses.asdict(self.published)
        return self.report.as_json() | {"published": published}


def measure_chunk(
    engine: Engine,
    avatar: Avatar,
    seconds: float,
    stages: Stages,
    published: PublishedFrames | None,
    budget_s: float,
) -> ChunkResult:
    """Speak a synthetic sound through the engine's own run loop, after a warm-up.

    Args:
        engine: Made for chunks of the wanted length.
        avatar: Who speaks.
        seconds: Of sound.
        stages: What makes a chunk's frames in the published order.
        published: Puts them into frames; None leaves that order out.
        budget_s: Seconds to spend on that order.
    """
    device, chunk = engine.bundle.device, engine.job.chunk
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    source = SyntheticSource(synthetic_sound(seconds), int(chunk * SAMPLE_RATE), engine.stats.clock)
    report = speak_synthetic(engine, avatar, source, ControlHandle())
    if published is None:
        return ChunkResult(report, None)
    size = ceil_div(chunk * engine.job.fps, 1)
    work = lambda: published_chunk(stages.encode, lambda: stages.decoded(size), published)  # noqa: E731
    return ChunkResult(report, _repeat(work, budget_s))


def _repeat(work: Callable[[], tuple[float, float]], budget_s: float) -> PublishedChunks:
    """Until the budget is spent; the first is a warm-up, unless it takes all of the budget."""
    begun = time.perf_counter()
    times = [work()]
    if time.perf_counter() - begun < budget_s:
        times.clear()
    while not times or (time.perf_counter() - begun < budget_s and len(times) < MOST_CHUNKS):
        times.append(work())
    firsts, lasts = zip(*times, strict=True)
    return PublishedChunks(len(times), Percentiles.of(firsts), Percentiles.of(lasts))
