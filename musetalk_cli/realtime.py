"""Sound as it comes, in chunks, into a speaking face."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from musetalk_cli.choice import settle
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.media.audio import probe_sound
from musetalk_cli.pipeline import Progress
from musetalk_cli.report import Report
from musetalk_cli.sinks import NullSink, VideoSink, check_not_input
from musetalk_cli.sources import FileSource, PcmSource
from musetalk_cli.speak import speak
from musetalk_cli.timing import MonotonicClock
from musetalk_cli.types import Sink, Source


def realtime(
    run: RunConfig,
    job: JobConfig,
    avatar: str,
    audio: Path | int,
    input_rate: int = 16_000,
    output: Path | None = None,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    *,
    pace: bool = True,
) -> Report:
    """Make an avatar speak a stream.

    Args:
        run: Where things are and what computes; without a model it is the one the avatar was made for.
        job: Frame rate, chunk, context, image steps and batches.
        avatar: Name of the avatar.
        audio: A sound file, or an open file descriptor that gives 16-bit mono PCM.
        input_rate: Samples per second of the descriptor's sound.
        output: Video to write, or None to make the frames and keep none.
        stop: Set from outside to end early; what was made so far is completed.
        progress: Told of every frame.
        pace: Deliver a file at its own speed; otherwise as fast as it is taken.

    Raises:
        MuseTalkError: Sound, model, avatar, device or output cannot be used.
    """
    run = settle(run, avatar)
    clock = MonotonicClock()
    sink: Sink = NullSink() if output is None else VideoSink(output)
    make_source: Callable[[], Source]
    if isinstance(audio, Path):
        if output is not None:
            check_not_input(output, audio)
        probe_sound(audio)
        make_source = partial(FileSource, audio, clock, pace=pace)
    else:
        pcm = PcmSource(audio, input_rate, clock)
        make_source = lambda: pcm  # noqa: E731 - opened by its caller, and checked before anything is loaded
    stop = stop or threading.Event()
    return speak(run, job, avatar, make_source, [sink], clock, stop, progress, offline=False)
