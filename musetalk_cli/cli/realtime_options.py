"""The options of `musetalk realtime`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from musetalk_cli.config import WhenLate
from musetalk_cli.timeline import CHUNK_LIMITS, WINDOW_LIMITS

_SOURCE, _OUTPUT, _STREAM = "Where the sound comes from", "Where the frames go", "How the stream behaves"
DEFAULT_DEVICE = "default"
"""What `--mic` without a name stands for."""


class RealtimeCommand(TyperCommand):
    """A command whose `--mic` may stand alone."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the arguments; an option or the end after `--mic` means the default device."""
        named = [
            f"--mic={DEFAULT_DEVICE}" if arg == "--mic" and after.startswith("-") else arg
            for arg, after in itertools.pairwise([*args, "-"])
        ]
        return super().parse_args(ctx, named)


def _list_devices(wanted: bool) -> None:
    if not wanted:
        return
    from musetalk_cli.cli.render import print_table
    from musetalk_cli.media.soundcards import LOUDSPEAKER, MICROPHONE, list_devices

    for direction in (MICROPHONE, LOUDSPEAKER):
        rows = [
            [
                str(found.index),
                found.name,
                str(found.channels),
                str(found.sample_rate),
                "*" * found.is_default,
            ]
            for found in list_devices(direction)
        ]
        print_table(direction.title, ["number", "name", "channels", "Hz", "default"], rows)
    raise typer.Exit


Mic = Annotated[
    str | None,
    typer.Option(
        "--mic",
        metavar="[DEVICE]",
        help="Microphone, by its number or a part of its name.",
        show_default="the default one, where no other source is given",
        rich_help_panel=_SOURCE,
    ),
]
ListDevices = Annotated[
    bool,
    typer.Option(
        "--list-devices",
        callback=_list_devices,
        is_eager=True,
        help="Show microphones and loudspeakers and exit.",
        rich_help_panel=_SOURCE,
    ),
]
Audio = Annotated[
    str | None,
    typer.Option(
        "--audio", metavar="FILE|-", help="Sound file, or - for PCM on stdin.", rich_help_panel=_SOURCE
    ),
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="[HOST:]PORT",
        help="PCM over TCP, from one client at a time; only from this machine unless a host is named.",
        rich_help_panel=_SOURCE,
    ),
]
InputRate = Annotated[
    int,
    typer.Option(
        "--input-rate",
        metavar="HZ",
        help="Sample rate of PCM (stdin, TCP), which is 16-bit.",
        rich_help_panel=_SOURCE,
    ),
]
InputChannels = Annotated[
    int, typer.Option("--input-channels", help="Channels of PCM (stdin, TCP).", rich_help_panel=_SOURCE)
]
Pace = Annotated[
    bool,
    typer.Option(
        "--pace/--no-pace",
        help="Take a file at its own speed, or as fast as it goes.",
        rich_help_panel=_SOURCE,
    ),
]
Output = Annotated[
    list[str] | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE|-|URL|null",
        help="File (.mp4, .mov, .mkv or .webm), - for Matroska on stdout, rtmp://, rtmps:// or srt://, "
        "or null to keep no frame; may be given several times.",
        show_default="null",
        rich_help_panel=_OUTPUT,
    ),
]
Display = Annotated[
    bool,
    typer.Option("--display", help="Show a window; i or space interrupts, q ends.", rich_help_panel=_OUTPUT),
]
VirtualCamera = Annotated[
    bool,
    typer.Option("--virtual-camera", help="Send the frames to a virtual camera.", rich_help_panel=_OUTPUT),
]
Live = Annotated[
    bool, typer.Option("--live/--no-live", help="Show a live panel on a terminal.", rich_help_panel=_OUTPUT)
]
TraceFile = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write the time of every stage as a Chrome trace.",
        rich_help_panel=_OUTPUT,
    ),
]
Chunk = Annotated[
    str,
    typer.Option(
        "--chunk",
        metavar="SECONDS",
        help=f"Length of a chunk of sound, {CHUNK_LIMITS}; a shorter one is seen sooner.",
        rich_help_panel=_STREAM,
    ),
]
Context = Annotated[
    str,
    typer.Option(
        "--context",
        metavar="max|SECONDS",
        help="Past sound that the encoder hears with each chunk.",
        rich_help_panel=_STREAM,
    ),
]
Window = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="SECONDS",
        help=f"Sound that the encoder hears at once, {WINDOW_LIMITS}; less is cheaper.",
        show_default="the model's own",
        rich_help_panel=_STREAM,
    ),
]
IdleAvatar = Annotated[
    str | None,
    typer.Option(
        "--idle-avatar",
        metavar="NAME",
        help="Avatar whose idle clip, or else whose frames, are shown in silence.",
        show_default="the one that speaks",
        rich_help_panel=_STREAM,
    ),
]
WhenLateOption = Annotated[
    WhenLate,
    typer.Option(
        "--when-late",
        help="Leave late frames out (drop) or wait for them; auto waits where the source waits.",
        rich_help_panel=_STREAM,
    ),
]
Control = Annotated[
    str | None,
    typer.Option(
        "--control",
        metavar="FD|SOCKET",
        help="Read commands from there, one on each line: interrupt or stop.",
        rich_help_panel=_STREAM,
    ),
]
