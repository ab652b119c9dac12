"""`musetalk generate`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from musetalk_cli.cli.avatar_and_audio import SAMPLE_SHOWN, AvatarOption, fill_in
from musetalk_cli.cli.interrupt import stop_on_signals
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.progress import progress, stages, steps_of
from musetalk_cli.cli.render import end_run
from musetalk_cli.config import JobConfig


@common_options(job=("fps", "alignment", "silence", "sharpen", "image_ops", "no_graphs", "batch_size"))
def generate(
    common: Common,
    avatar: AvatarOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            help="Video, image or folder of images whose face speaks, in place of an avatar: prepared once, "
            "and kept under the user's cache. The result has its frame rate, and every frame is made.",
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            "--audio", help="Recording to speak, in any format that ffmpeg reads.", show_default=SAMPLE_SHOWN
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Video to write: .mp4, .mov, .mkv or .webm.")
    ] = None,
    frames_dir: Annotated[
        Path | None,
        typer.Option(
            "--frames-dir",
            help="Folder for lossless pictures %08d.png; older ones there are removed.",
        ),
    ] = None,
    *,
    job: JobConfig,
) -> None:
    """Make an avatar, or the face in a video, speak a recording, and write a video, pictures or both."""
    if output is None and frames_dir is None:
        raise typer.BadParameter("pass --output, --frames-dir or both: there is nowhere to write to.")
    if source is not None:
        _dub(common, job, source, avatar, audio, output, frames_dir)
        return
    spoken = fill_in(common.run, avatar, None if audio is None else str(audio))
    from musetalk_cli.run.generate import generate as run

    with stop_on_signals() as handle, progress("speaking") as advance:
        report = run(common.run, job, spoken.avatar, Path(spoken.audio), output, frames_dir, handle, advance)
    end_run(report, as_json=common.json)


def _dub(
    common: Common,
    job: JobConfig,
    source: Path,
    avatar: str | None,
    audio: Path | None,
    output: Path | None,
    frames_dir: Path | None,
) -> None:
    """Prepare the face of a video where that was not done yet, and let it speak."""
    if avatar is not None:
        raise typer.BadParameter("pass --avatar or --source, not both.")
    if audio is None:
        raise typer.BadParameter("--audio is missing. Pass the sound to speak.")
    from musetalk_cli.run.dub import dub

    job = job if "silence" in common.given else replace(job, silence=None)
    fps = job.fps if "fps" in common.given else None
    with stop_on_signals() as handle, stages() as advance:
        report = dub(
            common.run,
            job,
            source,
            audio,
            output,
            frames_dir,
            fps=fps,
            handle=handle,
            preparing=steps_of(advance),
            progress=partial(advance, "speaking"),
        )
    end_run(report, as_json=common.json)
