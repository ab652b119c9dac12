"""A recording and a prepared face into a video: one stream that is not paced, in hops of 30 s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.part import WHOLE, Part
from musetalk_cli.engine.windows import OFFLINE_HOP
from musetalk_cli.errors import InputError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.media.audio import probe_sound
from musetalk_cli.run.defaults import settle
from musetalk_cli.run.job import run_job
from musetalk_cli.run.kept import Kept
from musetalk_cli.run.report import Report
from musetalk_cli.sinks import FramesSink, VideoSink, check_not_input
from musetalk_cli.sources import FileSource
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Sink

FileProgress = Callable[[int, int], None]
"""Called with the frames made so far and all there will be."""


def generate(
    run: RunConfig,
    job: JobConfig,
    avatar: str,
    audio: Path,
    output: Path | None = None,
    frames_dir: Path | None = None,
    handle: ControlHandle | None = None,
    progress: FileProgress | None = None,
    kept: Kept | None = None,
    *,
    rests: bool = True,
) -> Report:
    """Make an avatar speak a recording.

    Args:
        run: Where things are and what computes; without a model it is the one the avatar was made for.
        job: Frame rate, image steps, batches, and silence, which is decided as in a stream of the same sound.
            `chunk`, `context`, `window` and `when_late` do not matter to a whole file.
        avatar: Name of the avatar.
        audio: Any file with an audio stream.
        output: Video to write, with the sound at its own rate; or None.
        frames_dir: Folder for lossless pictures; or None.
        handle: What ends the run early from outside; what was made so far is completed.
        progress: Told a few times a second, and at the end.
        kept: What the job before this one has loaded, and the next one will find; None loads everything.
        rests: In silence the clip stays within its frames at rest, where it has some; else it goes on.

    Raises:
        InputError: Neither output is given, or the sound cannot be used.
        MuseTalkError: Model, avatar, device or output cannot be used.
    """
    sinks: list[Sink] = []
    if output is not None:
        check_not_input(output, audio)
        sinks.append(VideoSink(output))
    if frames_dir is not None:
        sinks.append(FramesSink(frames_dir))
    if not sinks:
        raise InputError("There is nowhere to write to.", "Pass --output, --frames-dir or both.")
    run = settle(run, avatar)
    sound = probe_sound(audio)
    total = Timeline(job.fps).frames_in(sound.samples, sound.sample_rate)
    return speak(run, job, avatar, audio, sinks, total, handle, progress, kept, rests=rests)


def speak(
    run: RunConfig,
    job: JobConfig,
    avatar: str,
    audio: Path,
    sinks: Sequence[Sink],
    total: int,
    handle: ControlHandle | None,
    progress: FileProgress | None,
    kept: Kept | None,
    *,
    rests: bool,
    part: Part = WHOLE,
) -> Report:
    """Make frames of a recording; as for `generate`, but for these.

    Args:
        run: As `defaults.settle` gave it.
        job: As for `generate`.
        avatar: As for `generate`.
        audio: As for `generate`.
        sinks: Where the frames go.
        total: How many there will be, for `progress`.
        handle: As for `generate`.
        progress: As for `generate`.
        kept: As for `generate`.
        rests: As for `generate`.
        part: Which frames.
    """
    clock = MonotonicClock()
    # As the published code encodes a file: windows of 30 s, none of which hears the one before it.
    job = replace(job, chunk=OFFLINE_HOP, context=Fraction(0), window=OFFLINE_HOP)
    return run_job(
        run,
        job,
        avatar,
        FileSource(audio, clock, pace=False),
        sinks,
        StreamPolicy.of_recording(),
        clock,
        handle or ControlHandle(),
        None if progress is None else lambda snapshot: progress(snapshot.frames, total),
        kept=kept,
        rests=rests,
        part=part,
    )
