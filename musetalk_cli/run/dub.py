"""A video and a sound into a video: the face is prepared once, and found again under the user's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from musetalk_cli.avatar.store import load_meta
from musetalk_cli.config import DEFAULT_MODEL, DataFolder, JobConfig, RunConfig, cache_folder
from musetalk_cli.errors import InputError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.media.audio import probe_sound
from musetalk_cli.media.video import source_files
from musetalk_cli.preparation.inputs import PictureSource
from musetalk_cli.preparation.run import Progress, Step
from musetalk_cli.run.cache import cache_limit, held, trim
from musetalk_cli.run.generate import FileProgress, generate
from musetalk_cli.run.kept import Kept
from musetalk_cli.run.prepare import prepare
from musetalk_cli.run.report import Report
from musetalk_cli.run.source_key import source_key
from musetalk_cli.sinks import FramesSink, VideoSink, check_not_input
from musetalk_cli.timeline import FPS_LIMITS, FPS_RANGE

_NAME_DIGITS = 32
WAITING = "waiting for another program"
"""The stage in which somebody else prepares the same face."""


def dub(
    run: RunConfig,
    job: JobConfig,
    source: Path,
    audio: Path,
    output: Path | None = None,
    frames_dir: Path | None = None,
    *,
    fps: Fraction | None = None,
    handle: ControlHandle | None = None,
    preparing: Progress | None = None,
    progress: FileProgress | None = None,
    kept: Kept | None = None,
) -> Report:
    """Make the person in a video speak a recording.

    The clip plays forward in its own time, also where nothing is said, and runs back only where the sound is
    longer.

    Args:
        run: Where things are and what computes; without a model it is v1.5.
        job: As for `generate`; its `fps` does not matter. With `silence` the clip's own mouth is shown in
            silence, and without it every frame is made, as the published code does.
        source: Video, image or folder of images with the face.
        audio: Any file with an audio stream.
        output: Video to write, or None.
        frames_dir: Folder for lossless pictures, or None.
        fps: Frames per second of the result; None is those of the clip.
        handle: What ends the run early from outside; what was made so far is completed.
        preparing: Told of every frame that is prepared.
        progress: Told of the frames that are made.
        kept: What the job before this one has loaded, and the next one will find.

    Raises:
        InputError: Neither output is given, or source or sound cannot be used.
        MuseTalkError: Model, device or output cannot be used.
    """
    _check(source, audio, output, frames_dir)
    with prepared(run, source, preparing) as (settled, name):
        job = replace(job, fps=fps or own_rate(settled, name, source))
        return generate(settled, job, name, audio, output, frames_dir, handle, progress, kept, rests=False)


@contextmanager
def prepared(
    run: RunConfig, source: Path, progress: Progress | None = None
) -> Iterator[tuple[RunConfig, str]]:
    """Have the avatar of a source in the cache, prepared where it is not there; nobody removes it meanwhile.

    Whoever wants the same one waits for it. After a preparation the cache is brought within its limit.

    Args:
        run: Where things are and what computes; without a model it is v1.5.
        source: Video, image or folder of images.
        progress: Told of every frame that is prepared, and now and then while another program does it.

    Yields:
        The same with the model, and with the cache as the folder of avatars; and the avatar's name there.

    Raises:
        MuseTalkError: The source cannot be prepared, or the cache cannot be written.
    """
    cache, limit, made = cache_folder(), cache_limit(), list[bool]()
    run = replace(run, model=run.model or DEFAULT_MODEL)
    name = source_key(run, source)[:_NAME_DIGITS]
    run = replace(run, avatars=DataFolder(cache, "cache"))

    def make() -> None:
        try:
            prepare(run, PictureSource(source), name, progress=progress)
        except InputError as error:
            if "--" not in (error.hint or ""):
                raise
            hint = f"{error.hint} `musetalk prepare-avatar` has these options; --avatar names what it makes."
            raise InputError(error.message, hint) from error
        made.append(True)

    def waits() -> None:
        if progress is not None:
            progress(Step(WAITING, 0, None, {}))

    with held(cache, name, make, waits):
        if made:
            trim(cache, limit)
        yield run, name


def _check(source: Path, audio: Path, output: Path | None, frames_dir: Path | None) -> None:
    """Refuse what cannot be used before the face is prepared, which may take minutes.

    Raises:
        MuseTalkError: The sound or an output cannot be used.
    """
    source_files(source)
    probe_sound(audio)
    if output is not None:
        check_not_input(output, audio)
        check_not_input(output, source, what="the source")
        VideoSink(output)
    if frames_dir is not None:
        FramesSink(frames_dir)


def own_rate(run: RunConfig, name: str, source: Path) -> Fraction:
    """Frames per second of a clip, where a result can have as many.

    Args:
        run: Its avatars are those of the cache.
        name: The clip's avatar there.
        source: The clip, for the message.

    Raises:
        InputError: No result can have so many.
    """
    fps = load_meta(run.avatars.path, name).fps
    if not FPS_RANGE[0] <= fps <= FPS_RANGE[1]:
        raise InputError(f"{source} has {float(fps):g} frames a second.", f"Choose --fps in {FPS_LIMITS}.")
    return fps
