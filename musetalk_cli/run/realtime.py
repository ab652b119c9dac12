"""Sound as it comes, in chunks, into a speaking face."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from musetalk_cli.clock import Clock, MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.live.watcher import Watch
from musetalk_cli.measure.trace import Trace
from musetalk_cli.run.defaults import settle
from musetalk_cli.run.job import run_job
from musetalk_cli.run.report import Report
from musetalk_cli.sinks import NullSink
from musetalk_cli.types import AudioSource, Sink


def realtime(
    run: RunConfig,
    job: JobConfig,
    avatar: str,
    source: AudioSource,
    sinks: Sequence[Sink] = (),
    handle: ControlHandle | None = None,
    watch: Watch | None = None,
    trace: Trace | None = None,
    clock: Clock | None = None,
    settled: Callable[[JobConfig], None] | None = None,
) -> Report:
    """Make an avatar speak a stream.

    Args:
        run: Where things are and what computes; without a model it is the one the avatar was made for.
        job: Frame rate, chunk, context, image steps and batches; how it behaves in silence and when late.
        avatar: Name of the avatar.
        source: Where the sound comes from; closed at the end, whatever happens.
        sinks: Where the frames go, all at once; without one they are made and not kept.
        handle: What ends or interrupts the stream from outside; what was made so far is completed.
        watch: Told how it goes, a few times a second and at the end.
        trace: Where every stage is written down, or None.
        clock: Where time comes from; the one the source has.
        settled: Told once, before the sound starts, the job as it is done: with the chunk that was chosen.

    Returns:
        The figures. `failures` names what failed on the way: a sink that was closed while others went on, or
        the source, after which the sinks were completed.

    Raises:
        MuseTalkError: Sound, model, avatar, device or output cannot be used, and no frame was shown.
    """
    try:
        run = settle(run, avatar)
    except BaseException:
        source.close()
        raise
    sinks = sinks or [NullSink()]
    return run_job(
        run,
        job,
        avatar,
        source,
        sinks,
        StreamPolicy.of_stream(source, sinks, job.when_late, job.chunk),
        clock or MonotonicClock(),
        handle or ControlHandle(),
        watch,
        trace,
        settled,
    )
