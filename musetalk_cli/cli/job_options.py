"""The options that make a job: what the help says of each, what is taken without it, and how it is read."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from musetalk_cli.config import (
    BATCH_SIZES,
    ImageOpsName,
    JobConfig,
    Sharpen,
    WhenLate,
    parse_sharpen,
    parse_silence,
)
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import (
    AHEAD_LIMITS,
    CHUNK_LIMITS,
    FPS_LIMITS,
    WINDOW_LIMITS,
    Alignment,
    parse_ahead,
    parse_chunk,
    parse_context,
    parse_fps,
    parse_live_chunk,
    parse_window,
    seconds_text,
)

stream_option = functools.partial(typer.Option, rich_help_panel="How the stream behaves")

JOB = JobConfig()
"""What is taken where an option is left out."""
CHUNK = seconds_text(JOB.chunk)

Fps = Annotated[
    str,
    typer.Option("--fps", metavar="NUMBER", help=f"Frames per second, {FPS_LIMITS}, like 25 or 30000/1001."),
]
AlignmentOption = Annotated[
    Alignment,
    typer.Option(
        "--alignment",
        help="Which sound a frame hears: that around its start, or what the published code takes. "
        "At 25 fps both are the same.",
    ),
]
SharpenOption = Annotated[
    str,
    typer.Option(
        "--sharpen", metavar="on|off|AMOUNT[,SIGMA[,THRESHOLD]]", help="Unsharp mask of the resized face."
    ),
]
SilenceOption = Annotated[
    str,
    typer.Option(
        "--silence",
        metavar="LEVEL|off",
        help="Sound below this level is silence, in which the face rests; off makes every frame.",
    ),
]
ImageOpsOption = Annotated[
    ImageOpsName, typer.Option("--image-ops", help="Where resize, sharpen and blend run.")
]
BatchSize = Annotated[
    str, typer.Option("--batch-size", metavar="auto|N[,N...]", help="Sizes that a batch of frames may have.")
]
NoGraphs = Annotated[
    bool,
    typer.Option("--no-graphs", help="On a GPU launch each operation singly: without CUDA graphs."),
]
Chunk = Annotated[
    str,
    stream_option(
        "--chunk",
        metavar="SECONDS",
        help=f"Length of a chunk of sound, {CHUNK_LIMITS}; a shorter one is seen sooner.",
    ),
]
LiveChunk = Annotated[
    str,
    stream_option(
        "--chunk",
        metavar="auto|SECONDS",
        help=f"Length of a chunk of sound, {CHUNK_LIMITS}; a shorter one is seen sooner. auto is the "
        f"shortest that the machine sustains where sound comes live, and {CHUNK} for a file.",
    ),
]
Ahead = Annotated[
    str,
    stream_option(
        "--ahead",
        metavar="SECONDS",
        help=f"Sound that is taken ahead of its time, {AHEAD_LIMITS}; whoever sends more waits.",
    ),
]
Context = Annotated[
    str,
    stream_option(
        "--context", metavar="max|SECONDS", help="Past sound that the encoder hears with each chunk."
    ),
]
Window = Annotated[
    str | None,
    stream_option(
        "--window",
        metavar="SECONDS",
        help=f"Sound that the encoder hears at once, {WINDOW_LIMITS}; less is cheaper.",
        show_default="the model's own",
    ),
]
IdleAvatar = Annotated[
    str | None,
    stream_option(
        "--idle-avatar",
        metavar="NAME",
        help="Avatar whose idle clip, or else whose frames, are shown in silence.",
        show_default="the one that speaks",
    ),
]
WhenLateOption = Annotated[
    WhenLate,
    stream_option(
        "--when-late",
        help="Drop late frames or wait for them; auto waits where the source waits.",
    ),
]


def parse_batch_sizes(text: str) -> tuple[int, ...] | None:
    """Read `1,4,8` as ascending sizes; `auto`, what suits the device, is None.

    Raises:
        InputError: A size is not a whole number in 1..256.
    """
    if text == "auto":
        return None
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"--batch-size {text} is not understood.", "Write it like 1,4,8.") from None
    least, most = BATCH_SIZES
    if not least <= sizes[0] <= sizes[-1] <= most:
        raise InputError(f"--batch-size {text} is outside {least}..{most}.", "Write it like 1,4,8.")
    return tuple(sizes)


@dataclass(frozen=True, slots=True)
class JobOption:
    """One of the options.

    Attributes:
        field: What it sets of a `JobConfig`.
        kind: Its type for typer.
        default: What is taken without it, as it is written.
        read: Reads what was written; None is not given, and is what the job has by itself.
    """

    field: str
    kind: object
    default: str | bool | None
    read: Callable[[Any], object] = str


# what has another form on the command line
FPS = str(JOB.fps)
CONTEXT = "max" if JOB.context is None else seconds_text(JOB.context)
WINDOW = None if JOB.window is None else seconds_text(JOB.window)
SILENCE = "off" if JOB.silence is None else str(JOB.silence)
SHARPEN = "off" if JOB.sharpen is None else "on" if JOB.sharpen == Sharpen() else str(JOB.sharpen)
BATCH_SIZE = "auto" if JOB.batch_sizes is None else ",".join(map(str, JOB.batch_sizes))
OPTIONS = {
    "fps": JobOption("fps", Fps, FPS, parse_fps),
    "alignment": JobOption("alignment", AlignmentOption, JOB.alignment),
    "chunk": JobOption("chunk", Chunk, CHUNK, parse_chunk),
    "live_chunk": JobOption("chunk", LiveChunk, "auto", parse_live_chunk),
    "ahead": JobOption("ahead", Ahead, seconds_text(JOB.ahead), parse_ahead),
    "context": JobOption("context", Context, CONTEXT, parse_context),
    "window": JobOption("window", Window, WINDOW, parse_window),
    "silence": JobOption("silence", SilenceOption, SILENCE, parse_silence),
    "idle_avatar": JobOption("idle_avatar", IdleAvatar, JOB.idle_avatar),
    "when_late": JobOption("when_late", WhenLateOption, JOB.when_late),
    "sharpen": JobOption("sharpen", SharpenOption, SHARPEN, parse_sharpen),
    "image_ops": JobOption("image_ops", ImageOpsOption, JOB.image_ops),
    "no_graphs": JobOption("graphs", NoGraphs, not JOB.graphs, operator.not_),
    "batch_size": JobOption("batch_sizes", BatchSize, BATCH_SIZE, parse_batch_sizes),
}
"""By the name of a command's argument."""


def parameters(names: Sequence[str]) -> list[inspect.Parameter]:
    """Arguments of a command, by their names in `OPTIONS`."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, keyword, default=OPTIONS[name].default, annotation=OPTIONS[name].kind)
        for name in names
    ]


def read(written: Mapping[str, str | bool | None]) -> JobConfig:
    """The job that options make, by their names in `OPTIONS`.

    Raises:
        InputError: One of them is not understood, or out of range.
    """
    fields: dict[str, Any] = {
        OPTIONS[name].field: OPTIONS[name].read(text) for name, text in written.items() if text is not None
    }
    if "chunk" in fields and fields["chunk"] is None:
        fields |= {"chunk": JOB.chunk, "auto_chunk": True}
    return JobConfig(**fields)
