"""The options of `musetalk prepare-avatar`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal

import typer

from musetalk_cli.avatar.layout import LatentsFormat
from musetalk_cli.face.settings import EXTRA_MARGIN, MaskMode
from musetalk_cli.preparation.options import Trim
from musetalk_cli.run.prepare_outputs import DetectorName, ParserName

OnOff = Literal["on", "off"]
_source = functools.partial(typer.Option, rich_help_panel="Source")
_face = functools.partial(typer.Option, rich_help_panel="Face")
_mask = functools.partial(typer.Option, rich_help_panel="Mask")
_time = functools.partial(typer.Option, rich_help_panel="Time")


Start = Annotated[str, _source("--start", help="Seconds to leave out at the beginning.", metavar="SECONDS")]
Duration = Annotated[
    str | None, _source("--duration", help="Seconds to take.", metavar="SECONDS", show_default="all")
]
Rate = Annotated[
    str | None,
    _source("--fps", help="Resample to this rate.", metavar="NUMBER", show_default="the source's own"),
]
MaxFrames = Annotated[int | None, _source("--max-frames", help="Take this many frames at most.")]
MaxSize = Annotated[
    int | None, _source("--max-size", help="Scale down until the longer side has at most this many pixels.")
]
Idle = Annotated[Path | None, _source("--idle", help="A clip of the same shape, to be shown in silence.")]
DetectorOption = Annotated[
    DetectorName,
    _face("--detector", help="What finds the face: DWPose if it is there, else OpenCV's cascade."),
]
FaceOption = Annotated[
    str,
    _face(
        "--face", help="Who speaks, where there are several people.", metavar="largest|left|right|center|N"
    ),
]
Landmarks = Annotated[
    Path | None,
    _face(
        "--landmarks",
        help="JSON with 68 points and the face's box for every frame; then no face is searched.",
    ),
]
SaveLandmarks = Annotated[
    Path | None,
    _face("--save-landmarks", help="Write what was found, to correct it by hand.", metavar="FILE"),
]
BboxShift = Annotated[int, _face("--bbox-shift", help="Rows by which the middle of the face is moved down.")]
ExtraMargin = Annotated[
    int | None,
    _face(
        "--extra-margin", help="Rows added below the chin.", show_default=f"{EXTRA_MARGIN} for v1.5, 0 for v1"
    ),
]
ConstantSize = Annotated[
    bool,
    _face(
        "--constant-size", help="Give the face's box the same size in all frames, the largest of the clip."
    ),
]
ParserOption = Annotated[
    ParserName, _mask("--parser", help="What draws the mask: SegFormer if it is there, else the outline.")
]
ParsingModeOption = Annotated[
    MaskMode | None,
    _mask(
        "--parsing-mode",
        help="Which parts of a parsed face are replaced.",
        show_default="jaw for v1.5, raw for v1",
    ),
]
CheekWidth = Annotated[
    str,
    _mask(
        "--cheek-width",
        help="Columns left and right of the middle, of 512, in which the mode jaw keeps the whole width.",
        metavar="LEFT,RIGHT",
    ),
]
UpperBoundary = Annotated[
    float, _mask("--upper-boundary", help="Share of the crop's height above which nothing changes.")
]
Feather = Annotated[
    float, _mask("--feather", help="Softness of the mask's edge, as a share of the crop's width.")
]
Smooth = Annotated[OnOff, _time("--smooth", help="Smooth the landmarks over time.")]
MaxGap = Annotated[
    float,
    _time(
        "--max-gap",
        help="Longest gap without a face that is filled in, in seconds; longer ones pass through.",
    ),
]
MinFaces = Annotated[float, _time("--min-faces", help="Share of the frames that must have a face.")]
TrimOption = Annotated[Trim, _time("--trim", help="Cut both ends at the frames where the clip moves least.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", help="How many faces are encoded at once.", show_default="what suits the device"
    ),
]
LatentsOption = Annotated[
    LatentsFormat,
    typer.Option(
        "--latents", help="Number format in which the latents are stored; fp16 takes half the space."
    ),
]
Preview = Annotated[
    list[str] | None,
    typer.Option(
        "--preview",
        metavar="FILE.png|grid[:FILE.png]",
        help="Write a contact sheet, or the boxes of several values of --bbox-shift (NAME-grid.png).",
    ),
]
