"""`musetalk generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from musetalk_cli.cli.choice import SAMPLE_SHOWN, AvatarOption, choose
from musetalk_cli.cli.interrupt import stop_on_signals
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import end_run, progress
from musetalk_cli.config import JobConfig


@common_options(job=("fps", "alignment", "silence", "sharpen", "image_ops", "batch_size"))
def generate(
    common: Common,
    avatar: AvatarOption = None,
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
    """Make an avatar speak a recording, and write a video, pictures or both."""
    if output is None and frames_dir is None:
        raise typer.BadParameter("pass --output, --frames-dir or both: there is nowhere to write to.")
    choice = choose(common.run, avatar, None if audio is None else str(audio))
    from musetalk_cli.run.generate import generate as run

    with stop_on_signals() as handle, progress("speaking") as advance:
        report = run(common.run, job, choice.avatar, Path(choice.audio), output, frames_dir, handle, advance)
    end_run(report, as_json=common.json)
