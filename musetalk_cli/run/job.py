"""The job both `generate` and `realtime` do: load, run one stream, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import replace
from fractions import Fraction

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.avatar.lookup import find_avatar
from musetalk_cli.avatar.store import load_idle, load_meta
from musetalk_cli.clock import Clock
from musetalk_cli.config import JobConfig, RunConfig, SilenceLevel
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.failures import telling_device_errors
from musetalk_cli.engine.part import WHOLE, Part
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.errors import InputError
from musetalk_cli.live import garbage
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.device_loop import DeviceLoop
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.observe import Observer, Outcome
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.live.stream import Stream
from musetalk_cli.live.watcher import Watch
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.measure.trace import Trace
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.run.kept import Kept
from musetalk_cli.run.report import Report, make_report
from musetalk_cli.timeline import ROWS_PER_SECOND, Timeline
from musetalk_cli.types import AudioSource, Clip, Sink

log = logging.getLogger(__name__)

CHUNKS = tuple(Fraction(hundredths, 100) for hundredths in (10, 12, 16, 20, 30, 40))
"""Lengths that are tried where the chunk is left open, in seconds; most are whole frames at 25 a second."""


def make_engine(
    bundle: Bundle, job: JobConfig, clock: Clock, trace: Trace | None = None, *, live: bool
) -> Engine:
    """Build an engine for loaded networks; on CUDA its stages are timed by events.

    Args:
        bundle: The networks.
        job: How frames are made.
        clock: Where time comes from.
        trace: Where every stage is written down, or None.
        live: Frames are shown as they come.

    Raises:
        DeviceError: The device has failed, has no memory for it, or cannot be used by this PyTorch.
    """
    device = bundle.device if bundle.device.type == "cuda" else None
    with telling_device_errors():
        return Engine(bundle, job, StageStats(clock, device, trace), live=live)


def choose_chunk(engine: Engine, besides: float = 0.0) -> None:
    """Settle the length of a chunk, where it is left open, by what the engine measured as it warmed up.

    Args:
        engine: Whose chunk it is.
        besides: Share of the device's time that is needed for something else.
    """
    job = engine.job
    if not job.auto_chunk:
        return
    shorter = (chunk for chunk in CHUNKS if chunk < job.chunk)
    chosen = next((chunk for chunk in shorter if engine.costs.sustains(chunk, job.fps, besides)), job.chunk)
    if not engine.costs.sustains(chosen, job.fps):
        log.warning(
            "This machine needs %.2g s to compute %.2g s of speech, too long: frames will be dropped.",
            engine.costs.of(chosen, job.fps),
            float(chosen),
        )
    engine.take_chunk(chosen)


def run_job(
    run: RunConfig,
    job: JobConfig,
    avatar_name: str,
    source: AudioSource,
    sinks: Sequence[Sink],
    policy: StreamPolicy,
    clock: Clock,
    handle: ControlHandle,
    watch: Watch | None = None,
    trace: Trace | None = None,
    settled: Callable[[JobConfig], None] | None = None,
    kept: Kept | None = None,
    *,
    rests: bool = True,
    part: Part = WHOLE,
) -> Report:
    """Make an avatar speak what a source says.

    Args:
        run: Where things are and what computes, as `defaults.settle` gave it.
        job: How.
        avatar_name: Who.
        source: The sound; closed at the end, whatever happens.
        sinks: Where the frames go.
        policy: How the stream keeps time, for the job's chunk; where that is left open, for the one that is
            chosen.
        clock: Where time comes from.
        handle: What ends or interrupts the run from outside; what was made so far is completed.
        watch: Told how it goes.
        trace: Where every stage is written down, or None.
        settled: Told the job as it is done, before the sound starts.
        kept: What the job before this one has loaded, and the next one will find; None loads everything.
        rests: In silence the clip stays within its frames at rest, where it has some; else it goes on.
        part: Frames that are made, where it is offline.

    Raises:
        MuseTalkError: Something named in its message cannot be used.
    """
    with closing(source), ExitStack() as at_end:
        kept = kept or Kept()
        avatar = kept.avatar(run, avatar_name)
        if not rests:
            avatar = replace(avatar, meta=replace(avatar.meta, rest_frames=()))
        # all or nothing is not interrupted, and without that nothing rests where every frame is made
        idle = None if policy.all_or_nothing and job.silence is None else find_idle(run, job, avatar)
        engine = make_engine(kept.bundle(run), job, clock, trace, live=policy.speaks_live)
        # the next job of a batch finds the memory free
        at_end.callback(engine.end)
        if not policy.all_or_nothing:
            # everything is done once before the sound starts, so that the first chunk is like the others
            engine.warm_up(avatar)
            if policy.speaks_live:
                choose_chunk(engine)
                policy = policy.for_chunk(engine.job.chunk)
        job = engine.job
        if settled is not None:
            settled(job)
        ends = Ends(source, sinks, handle.stop, watch)
        outcome = run_session(engine, avatar, job.silence, idle, policy, ends, handle, trace, part)
        return make_report(engine, outcome, float(job.fps), settings(engine, job, avatar_name))


def run_session(
    engine: Engine,
    avatar: Avatar,
    silence: SilenceLevel | None,
    idle: Clip | None,
    policy: StreamPolicy,
    ends: Ends,
    handle: ControlHandle | None = None,
    trace: Trace | None = None,
    part: Part = WHOLE,
) -> Outcome:
    """Run one stream on an engine that has no other, in this thread.

    Args:
        engine: What makes the frames, as its job says.
        avatar: Who speaks.
        silence: The level that is silence; None makes every frame.
        idle: Pictures shown in silence; None is the avatar's own frames.
        policy: How the stream keeps time, and what a failure does.
        ends: Source and sinks.
        handle: What interrupts the stream from outside, or None.
        trace: Where moments and the depths of queues go, or None.
        part: Frames that are made, of a recording.

    Raises:
        MuseTalkError: Source, engine or a sink failed before the first frame, or at all where it is all or
            nothing.
    """
    loop = DeviceLoop(engine, engine.stats.clock)
    stream = open_stream(engine, loop, avatar, silence, idle, policy, ends, trace, part=part)
    if handle is not None:
        handle.bind(stream)
    try:
        # nobody sees that the making of a recording stands still
        with nullcontext() if policy.all_or_nothing else garbage.frozen():
            stream.open()
            loop.add(stream)
            loop.run()
            return stream.join()
    except BaseException as error:
        stream.abort(error)
        raise
    finally:
        engine.close(stream.session)


def open_stream(
    engine: Engine,
    loop: DeviceLoop,
    avatar: Avatar,
    silence: SilenceLevel | None,
    idle: Clip | None,
    policy: StreamPolicy,
    ends: Ends,
    trace: Trace | None = None,
    fps: Fraction | None = None,
    part: Part = WHOLE,
) -> Stream:
    """A stream with its session, for a loop that it is added to once it is open.

    Args:
        engine: What makes the frames, as its job says.
        loop: The engine's loop.
        avatar: Who speaks; it is put on the device here, in the caller's thread.
        silence: The level that is silence; None makes every frame.
        idle: Pictures shown in silence; None is the avatar's own frames.
        policy: How the stream keeps time, and what a failure does.
        ends: Source and sinks.
        trace: Where moments and the depths of queues go, or None.
        fps: Frames per second; None is what the job says.
        part: Frames that are made, of a recording.
    """
    job, source, clock = engine.job, ends.source, engine.stats.clock
    fps = fps or job.fps
    schedule = None
    if policy.paced:
        schedule = PlayoutSchedule(Timeline(fps, job.alignment), job.chunk, engine.costs.first_frames)
    due = None if schedule is None else schedule.expected
    options = SessionOptions(
        silence, idle, policy.speaks_live, policy.late_after_s, due, policy.fills_batches, part
    )
    session = engine.open(avatar, fps, job.chunk, job.context, source.sample_rate, source.channels, options)
    observer = Observer(clock, float(job.chunk), source.sample_rate, trace)
    buffering = policy.buffering(fps, job.chunk, engine.batch_sizes[-1], job.ahead)
    return Stream(loop, session, ends, policy, schedule, buffering, observer, engine.stats)


def find_idle(run: RunConfig, job: JobConfig, avatar: Avatar) -> Clip | None:
    """Pictures that are shown in silence; None is the avatar's own frames.

    Raises:
        InputError: They have another size.
        AvatarError: They cannot be read.
    """
    if job.idle_avatar is None:
        return load_idle(run.avatars.path, avatar.meta) if avatar.meta.idle_frames else None
    home = find_avatar(run.avatars.path, job.idle_avatar)
    meta = load_meta(home.avatars_dir, job.idle_avatar)
    if (meta.width, meta.height) != (avatar.meta.width, avatar.meta.height):
        raise InputError(
            f"--idle-avatar {job.idle_avatar} is {meta.width}x{meta.height}, and {avatar.meta.name} is "
            f"{avatar.meta.width}x{avatar.meta.height}.",
            "Prepare one of the same size.",
        )
    return load_idle(home.avatars_dir, meta)


def settings(engine: Engine, job: JobConfig, avatar_name: str) -> dict[str, str | float | bool | None]:
    """What a report says the run was asked for, and what was chosen for `auto`."""
    return {
        "avatar": avatar_name,
        "model": engine.bundle.name,
        "random_weights": engine.bundle.random,
        "vae": "own" if engine.bundle.decoder is None else "taesd",
        "precision": str(engine.bundle.dtype).removeprefix("torch."),
        "image_ops": engine.images.path,
        "sharpen": "off" if job.sharpen is None else str(job.sharpen),
        "context_s": None if job.context is None else float(job.context),
        "window_s": engine.window_rows / ROWS_PER_SECOND,
        "batch_sizes": ",".join(str(size) for size in engine.batch_sizes),
        "graphs": ",".join(str(size) for size in engine.faces.graphed) or "off",
        "fps": str(Fraction(job.fps)),
        "alignment": job.alignment,
        "silence": "off" if job.silence is None else str(job.silence),
        "idle_avatar": job.idle_avatar,
        "when_late": job.when_late,
    }
