"""One synthetic stream through the engine's own run loop."""

from __future__ import annotations

from dataclasses import replace

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session import Manners
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.jitter_buffer import PlayoutSchedule
from musetalk_cli.live.observe import Observer
from musetalk_cli.live.stream import Pipeline
from musetalk_cli.run.job import settings
from musetalk_cli.run.report import Report, make_report
from musetalk_cli.sinks import NullSink
from musetalk_cli.types import AudioSource


def speak_synthetic(engine: Engine, avatar: Avatar, source: AudioSource, remote: ControlHandle) -> Report:
    """Make every frame of a sound, after a warm-up, and keep none.

    Args:
        engine: What makes them.
        avatar: Who speaks.
        source: The sound; where it does not wait, frames are paced, and those too late are left out.
        remote: Ends it early, from outside.
    """
    engine.warm_up(avatar)
    job, clock = replace(engine.job, silence=None), engine.stats.clock
    manners = Manners() if source.patient else Manners(late_after=float(job.chunk))
    session = engine.open(
        avatar, job.fps, job.chunk, job.context, source.sample_rate, source.channels, manners
    )
    observer = Observer(clock, float(job.chunk), source.sample_rate)
    playout = None if source.patient else PlayoutSchedule(session.timeline, job.chunk)
    pipeline = Pipeline(engine, session, source, [NullSink()], clock, observer, playout=playout)
    remote.bind(session)
    try:
        outcome = pipeline.run(remote.stop)
    finally:
        engine.close(session)
    return make_report(engine, outcome, float(job.fps), settings(engine, job, avatar.meta.name))
