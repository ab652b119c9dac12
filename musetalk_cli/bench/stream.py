"""A synthetic avatar and the networks to measure, and one stream of theirs through the engine's own loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.options import AvatarSizes
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import RunConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.nets.bundle import Bundle, open_bundle
from musetalk_cli.run.defaults import settle_alone
from musetalk_cli.run.job import run_session, settings
from musetalk_cli.run.report import Report, make_report
from musetalk_cli.sinks import NullSink
from musetalk_cli.types import AudioSource


def open_synthetic(
    run: RunConfig, sizes: AvatarSizes, notice: Callable[[str], None]
) -> tuple[Bundle, Avatar]:
    """The networks that are measured, and an avatar for them.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        sizes: Of the avatar.
        notice: Told what is taken and that it is loaded.

    Raises:
        MuseTalkError: The device is not there, the model cannot be loaded, or the sizes do not fit.
    """
    avatar = synthetic_avatar(sizes.width, sizes.height, sizes.face, sizes.frames)
    run, taken = settle_alone(run, "measuring")
    if taken is not None:
        notice(taken)
    notice("loading the networks")
    return open_bundle(run), avatar


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
    ends = Ends(source, [NullSink()], handle.stop)
    outcome = run_session(engine, avatar, None, None, policy, ends, handle)
    return make_report(engine, outcome, float(job.fps), settings(engine, job, avatar.meta.name))
