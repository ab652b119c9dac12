"""One synthetic stream through the engine's own run loop."""

from __future__ import annotations

from dataclasses import replace

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session import SessionOptions
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.run.job import run_session, settings
from musetalk_cli.run.report import Report, make_report
from musetalk_cli.sinks import NullSink
from musetalk_cli.types import AudioSource


def speak_synthetic(engine: Engine, avatar: Avatar, source: AudioSource, handle: ControlHandle) -> Report:
    """Make every frame of a sound, after a warm-up, and keep none.

    Args:
        engine: What makes them.
        avatar: Who speaks.
        source: The sound; where it does not wait, frames are paced, and those too late are left out.
        handle: Ends it early, from outside.
    """
    engine.warm_up(avatar)
    job = replace(engine.job, silence=None)
    policy = StreamPolicy.of_stream(source, (), "auto", job.chunk)
    options = SessionOptions(late_after_s=policy.late_after_s)
    ends = Ends(source, [NullSink()], handle.stop)
    outcome = run_session(engine, avatar, options, policy, ends, handle)
    return make_report(engine, outcome, float(job.fps), settings(engine, job, avatar.meta.name))
