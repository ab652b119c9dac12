"""The job both `generate` and `realtime` do: load, run one stream, report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from fractions import Fraction

from musetalk_cli.avatar.store import load_avatar
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine import Engine
from musetalk_cli.nets.bundle import open_bundle
from musetalk_cli.pipeline import Pipeline, Progress
from musetalk_cli.report import Report, make_report
from musetalk_cli.timing import Clock, StageStats
from musetalk_cli.types import Sink, Source


def make_engine(run: RunConfig, job: JobConfig, clock: Clock) -> Engine:
    """Load the networks and build an engine for them.

    Raises:
        DeviceError: The device is not there.
        ModelError: The bundle is missing or broken.
    """
    bundle = open_bundle(run)
    return Engine(bundle, job, StageStats(clock, bundle.device if bundle.device.type == "cuda" else None))


def speak(
    run: RunConfig,
    job: JobConfig,
    avatar_name: str,
    make_source: Callable[[], Source],
    sinks: Sequence[Sink],
    clock: Clock,
    stop: threading.Event,
    progress: Progress | None = None,
    *,
    offline: bool,
) -> Report:
    """Make an avatar speak what a source says.

    Args:
        run: Where things are and what computes, as `choice.settle` gave it.
        job: How.
        avatar_name: Who.
        make_source: Opens the sound; called once everything else is loaded, so that no sound waits.
        sinks: Where the frames go.
        clock: Where time comes from.
        stop: Set from outside to end early; what was made so far is completed.
        progress: Told of every frame.
        offline: No frame can be late. In a stream everything is done once before the sound starts, so that
            its first chunk is like the others.

    Raises:
        MuseTalkError: Something named in its message cannot be used; nothing half-written is left.
    """
    avatar = load_avatar(run.avatars.path, avatar_name)
    engine = make_engine(run, job, clock)
    if not offline:
        engine.warm_up(avatar)
    source = make_source()
    session = engine.open(avatar, job.fps, job.chunk, job.context, source.sample_rate, source.channels)
    pipeline = Pipeline(engine, session, source, sinks, clock, float(job.chunk), offline=offline)
    try:
        outcome = pipeline.run(stop, progress)
    finally:
        engine.close(session)
    return make_report(engine, outcome, float(job.fps), settings(engine, job, avatar_name))


def settings(engine: Engine, job: JobConfig, avatar_name: str) -> dict[str, str | float | bool | None]:
    """What a report says the run was asked for, and what was chosen for `auto`."""
    return {
        "avatar": avatar_name,
        "model": engine.bundle.name,
        "random_weights": engine.bundle.random,
        "precision": str(engine.bundle.dtype).removeprefix("torch."),
        "image_ops": engine.image_path,
        "sharpen": "off" if job.sharpen is None else str(job.sharpen),
        "context_s": None if job.context is None else float(job.context),
        "batch_sizes": ",".join(str(size) for size in engine.batch_sizes),
        "fps": str(Fraction(job.fps)),
    }
