"""The options of `musetalk realtime`."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from musetalk_cli.cli.job_options import stream_option
from musetalk_cli.cli.outputs import DEFAULT_DEVICE

_source = functools.partial(typer.Option, rich_help_panel="Where the sound comes from")
_output = functools.partial(typer.Option, rich_help_panel="Where the frames go")


class RealtimeCommand(TyperCommand):
    """A command whose `--mic` and `--speaker` may stand alone."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Read the arguments; an option or the end after either means the default device."""
        named = [
            f"{arg}={DEFAULT_DEVICE}" if arg in {"--mic", "--speaker"} and after.startswith("-") else arg
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
    _source(
        "--mic",
        metavar="[DEVICE]",
        help="Microphone, by its number or a part of its name.",
        show_default="the default one, where no other source is given",
    ),
]
ListDevices = Annotated[
    bool,
    _source(
        "--list-devices",
        callback=_list_devices,
        is_eager=True,
        help="Show microphones and loudspeakers and exit.",
    ),
]
Audio = Annotated[str | None, _source("--audio", metavar="FILE|-", help="Sound file, or - for PCM on stdin.")]
Listen = Annotated[
    str | None,
    _source(
        "--listen",
        metavar="[HOST:]PORT",
        help="PCM over TCP, from one client at a time; only from this machine unless a host is named.",
    ),
]
InputRate = Annotated[
    int, _source("--input-rate", metavar="HZ", help="Sample rate of PCM (stdin, TCP), which is 16-bit.")
]
InputChannels = Annotated[int, _source("--input-channels", help="Channels of PCM (stdin, TCP).")]
Pace = Annotated[
    bool, _source("--pace/--no-pace", help="Take a file at its own speed, or as fast as it goes.")
]
Output = Annotated[
    list[str] | None,
    _output(
        "--output",
        "-o",
        metavar="FILE|-|URL|null",
        help="File (.mp4, .mov, .mkv or .webm), - for Matroska on stdout, rtmp://, rtmps:// or srt://, "
        "or null to keep no frame; may be given several times.",
        show_default="a window and a loudspeaker where there are some, else null",
    ),
]
Display = Annotated[bool, _output("--display", help="Show a window; i or space interrupts, q ends.")]
SpeakerDevice = Annotated[
    str | None,
    _output(
        "--speaker",
        metavar="[DEVICE]",
        help="Play the sound on a loudspeaker, by its number or a part of its name.",
        show_default="the default one, where no output is named and the sound is no microphone's",
    ),
]
VirtualCamera = Annotated[bool, _output("--virtual-camera", help="Send the frames to a virtual camera.")]
Live = Annotated[bool, _output("--live/--no-live", help="Show a live panel on a terminal.")]
TraceFile = Annotated[
    Path | None, _output("--trace", metavar="FILE", help="Write the time of every stage as a Chrome trace.")
]
Control = Annotated[
    str | None,
    stream_option(
        "--control",
        metavar="FD|SOCKET",
        help="Read commands from there, one on each line: interrupt or stop.",
    ),
]
