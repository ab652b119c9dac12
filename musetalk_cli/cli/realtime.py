"""`musetalk realtime`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from musetalk_cli.cli import options
from musetalk_cli.cli.interrupt import stop_on_interrupt
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import end_run, progress
from musetalk_cli.cli.speaker import SAMPLE_SHOWN, AvatarOption, choose
from musetalk_cli.config import JobConfig, parse_sharpen
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import parse_chunk, parse_context, parse_fps


@common_options()
def realtime(
    common: Common,
    avatar: AvatarOption = None,
    audio: Annotated[
        str | None,
        typer.Option(
            "--audio",
            metavar="FILE|-",
            help="Sound file, or - for PCM on stdin.",
            show_default=SAMPLE_SHOWN,
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE|null", help="Video to write, or null to keep no frame."),
    ] = "null",
    fps: options.Fps = "25",
    chunk: Annotated[
        str, typer.Option("--chunk", metavar="SECONDS", help="Sound per hop, 0.04..30; smaller is sooner.")
    ] = "0.5",
    context: Annotated[
        str, typer.Option("--context", metavar="max|SECONDS", help="Past sound heard with each hop.")
    ] = "max",
    pace: Annotated[bool, typer.Option("--pace/--no-pace", help="Play a file at its own speed.")] = True,
    input_rate: Annotated[
        int, typer.Option("--input-rate", metavar="HZ", help="Rate of the 16-bit mono PCM on stdin.")
    ] = 16_000,
    sharpen: options.Sharpen = "on",
    image_ops: options.ImageOpsOption = options.ImageOps.auto,
    batch_size: options.BatchSize = "auto",
) -> None:
    """Make an avatar speak a stream, chunk by chunk, and say how long everything took."""
    job = JobConfig(
        fps=parse_fps(fps),
        chunk=parse_chunk(chunk),
        context=parse_context(context),
        sharpen=parse_sharpen(sharpen),
        image_ops=image_ops.value,
        batch_sizes=options.parse_batch_sizes(batch_size),
    )
    if audio == "-" and sys.stdin.isatty():
        raise InputError(
            "--audio - reads sound from a pipe, and standard input is a terminal.", "Pipe PCM into it."
        )
    speaker = choose(common.run, avatar, audio)
    from musetalk_cli.realtime import realtime as run

    with stop_on_interrupt() as stop, progress("speaking") as advance:
        report = run(
            common.run,
            job,
            speaker.avatar,
            sys.stdin.fileno() if audio == "-" else Path(speaker.audio),
            input_rate,
            None if output == "null" else Path(output),
            stop,
            lambda done: advance(done, None),
            pace=pace,
        )
    end_run(report, as_json=common.json)
