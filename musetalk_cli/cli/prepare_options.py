"""The options of `musetalk prepare-avatar`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from musetalk_cli.avatar.layout import LatentsFormat
from musetalk_cli.face.settings import EXTRA_MARGIN, MaskMode
from musetalk_cli.preparation.options import Trim
from musetalk_cli.run.prepare_outputs import DetectorName, ParserName

OnOff = Literal["on", "off"]
_SOURCE, _FACE, _MASK, _TIME = "Source", "Face", "Mask", "Time"


def _option(name: str, panel: str, text: str, **more: Any) -> Any:  # noqa: ANN401 - as typer types it
    return typer.Option(name, help=text, rich_help_panel=panel, **more)


Start = Annotated[
    str, _option("--start", _SOURCE, "Seconds to leave out at the beginning.", metavar="SECONDS")
]
Duration = Annotated[
    str | None, _option("--duration", _SOURCE, "Seconds to take.", metavar="SECONDS", show_default="all")
]
Rate = Annotated[
    str | None,
    _option("--fps", _SOURCE, "Resample to this rate.", metavar="NUMBER", show_default="the source's own"),
]
MaxFrames = Annotated[int | None, _option("--max-frames", _SOURCE, "Take this many frames at most.")]
MaxSize = Annotated[
    int | None,
    _option("--max-size", _SOURCE, "Scale down until the longer side has at most this many pixels."),
]
Idle = Annotated[Path | None, _option("--idle", _SOURCE, "A clip of the same shape, to be shown in silence.")]
DetectorOption = Annotated[
    DetectorName,
    _option("--detector", _FACE, "What finds the face: DWPose if it is there, else OpenCV's cascade."),
]
FaceOption = Annotated[
    str,
    _option(
        "--face", _FACE, "Who speaks, where there are several people.", metavar="largest|left|right|center|N"
    ),
]
Landmarks = Annotated[
    Path | None,
    _option(
        "--landmarks",
        _FACE,
        "JSON with 68 points and the face's box for every frame; then no face is searched.",
    ),
]
SaveLandmarks = Annotated[
    Path | None,
    _option("--save-landmarks", _FACE, "Write what was found, to correct it by hand.", metavar="FILE"),
]
BboxShift = Annotated[
    int, _option("--bbox-shift", _FACE, "Rows by which the middle of the face is moved down.")
]
ExtraMargin = Annotated[
    int | None,
    _option(
        "--extra-margin",
        _FACE,
        "Rows added below the chin.",
        show_default=f"{EXTRA_MARGIN} for v1.5, 0 for v1",
    ),
]
ConstantSize = Annotated[
    bool,
    _option(
        "--constant-size", _FACE, "Give the face's box the same size in all frames, the largest of the clip."
    ),
]
ParserOption = Annotated[
    ParserName, _option("--parser", _MASK, "What draws the mask: SegFormer if it is there, else the outline.")
]
ParsingModeOption = Annotated[
    MaskMode | None,
    _option(
        "--parsing-mode",
        _MASK,
        "Which parts of a parsed face are replaced.",
        show_default="jaw for v1.5, raw for v1",
    ),
]
CheekWidth = Annotated[
    str,
    _option(
        "--cheek-width",
        _MASK,
        "Columns left and right of the middle, of 512, that the mode jaw leaves wide.",
        metavar="LEFT,RIGHT",
    ),
]
UpperBoundary = Annotated[
    float, _option("--upper-boundary", _MASK, "Share of the crop's height above which nothing changes.")
]
Feather = Annotated[
    float, _option("--feather", _MASK, "Softness of the mask's edge, as a share of the crop's width.")
]
Smooth = Annotated[OnOff, _option("--smooth", _TIME, "Smooth the landmarks over time.")]
MaxGap = Annotated[
    float,
    _option(
        "--max-gap",
        _TIME,
        "Longest gap without a face that is filled in, in seconds; longer ones pass through.",
    ),
]
MinFaces = Annotated[float, _option("--min-faces", _TIME, "Share of the frames that must have a face.")]
TrimOption = Annotated[
    Trim, _option("--trim", _TIME, "Cut both ends at the frames where the clip moves least.")
]
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
