"""`musetalk prepare-avatar`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.cli import prepare_options as given
from musetalk_cli.cli.options import Common, Overwrite, common_options
from musetalk_cli.cli.progress import stages, steps_of
from musetalk_cli.cli.render import print_json, put, say
from musetalk_cli.config import DEFAULT_MODEL
from musetalk_cli.errors import InputError
from musetalk_cli.face.settings import MaskShape
from musetalk_cli.media.selection import Selection
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.run.prepare_outputs import PrepareOutputs
from musetalk_cli.timeline import parse_fps, parse_seconds, seconds_text

if TYPE_CHECKING:
    from musetalk_cli.preparation.run import Prepared

SELECTION, OPTIONS, OUTPUTS = Selection(), PrepareOptions(), PrepareOutputs()
"""What is taken where an option is left out."""


@common_options(model=DEFAULT_MODEL)
def prepare_avatar(
    common: Common,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Video, image or folder of images.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new avatar.")],
    start: given.Start = seconds_text(SELECTION.start),
    duration: given.Duration = None,
    fps: given.Rate = None,
    max_frames: given.MaxFrames = SELECTION.max_frames,
    max_size: given.MaxSize = SELECTION.max_size,
    idle: given.Idle = None,
    detector: given.DetectorOption = OUTPUTS.detector,
    face: given.FaceOption = OPTIONS.face,
    landmarks: given.Landmarks = None,
    save_landmarks: given.SaveLandmarks = OUTPUTS.landmarks_file,
    bbox_shift: given.BboxShift = OPTIONS.bbox_shift,
    extra_margin: given.ExtraMargin = OPTIONS.extra_margin,
    constant_size: given.ConstantSize = OPTIONS.constant_size,
    parser: given.ParserOption = OUTPUTS.parser,
    parsing_mode: given.ParsingModeOption = OPTIONS.mask.mode,
    cheek_width: given.CheekWidth = ",".join(map(str, OPTIONS.mask.cheek_width)),
    upper_boundary: given.UpperBoundary = OPTIONS.mask.upper_boundary,
    feather: given.Feather = OPTIONS.mask.feather,
    smooth: given.Smooth = "on" if OPTIONS.smooth else "off",
    max_gap: given.MaxGap = OPTIONS.max_gap,
    min_faces: given.MinFaces = OPTIONS.min_faces,
    trim: given.TrimOption = OPTIONS.trim,
    batch_size: given.BatchSize = OPTIONS.batch_size,
    latents: given.LatentsOption = OPTIONS.latents,
    preview: given.Preview = None,
    overwrite: Overwrite = False,
) -> None:
    """Prepare a face from a video, an image or a folder of images, so that it can speak later.

    An interrupted preparation goes on where it stopped when the same command is run again.
    """
    options = PrepareOptions(
        face=face,
        bbox_shift=bbox_shift,
        extra_margin=extra_margin,
        smooth=smooth == "on",
        constant_size=constant_size,
        max_gap=max_gap,
        min_faces=min_faces,
        trim=trim,
        mask=MaskShape(parsing_mode, _pair(cheek_width), upper_boundary, feather),
        batch_size=batch_size,
        latents=latents,
    )
    outputs = PrepareOutputs(detector, parser, save_landmarks, *_previews(preview or [], name))
    selection = _selection(start, duration, fps, max_frames, max_size)
    _run(common, source, selection, idle, landmarks, name, options, outputs, overwrite=overwrite)


def _run(
    common: Common,
    path: Path,
    selection: Selection,
    idle: Path | None,
    landmarks: Path | None,
    name: str,
    options: PrepareOptions,
    outputs: PrepareOutputs,
    *,
    overwrite: bool,
) -> None:
    from musetalk_cli.avatar.names import validate_name
    from musetalk_cli.face.landmarks import read_landmarks
    from musetalk_cli.media.video import source_files
    from musetalk_cli.preparation.inputs import PictureSource
    from musetalk_cli.run.prepare import prepare

    validate_name(name)
    for file in (path, idle):
        if file is not None:
            source_files(file)
    source = PictureSource(path, selection, idle, None if landmarks is None else read_landmarks(landmarks))
    try:
        with stages() as advance:
            steps = steps_of(advance)
            prepared = prepare(
                common.run, source, name, options, outputs, overwrite=overwrite, progress=steps
            )
    except KeyboardInterrupt:
        say("Stopped. The same command goes on from here.")
        raise
    _show(common, name, prepared, outputs)


def _selection(
    start: str, duration: str | None, fps: str | None, max_frames: int | None, max_size: int | None
) -> Selection:
    return Selection(
        start=parse_seconds(start, "--start"),
        duration=None if duration is None else parse_seconds(duration, "--duration"),
        fps=None if fps is None else parse_fps(fps),
        max_frames=max_frames,
        max_size=max_size,
    )


def _pair(text: str) -> tuple[int, int]:
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise InputError(f"--cheek-width {text} is not understood.", "Write it like 90,90.")
    return int(parts[0]), int(parts[1])


def _previews(values: list[str], name: str) -> tuple[Path | None, Path | None]:
    """Where the contact sheet and the grid go."""
    sheet: Path | None = None
    grid: Path | None = None
    for value in values:
        kind, _, file = value.partition(":")
        path = Path(file or f"{name}-grid.png") if kind == "grid" else Path(value)
        if path.suffix.lower() != ".png":
            raise InputError(f"--preview {value} is no PNG file.", "Use FILE.png, grid or grid:FILE.png.")
        if (grid if kind == "grid" else sheet) is not None:
            raise InputError(f"--preview {value} is the second of its kind.", "Pass one file and one grid.")
        if kind == "grid":
            grid = path
        else:
            sheet = path
    return sheet, grid


def _show(common: Common, name: str, prepared: Prepared, outputs: PrepareOutputs) -> None:
    """What was made, and what to know of it."""
    meta = prepared.meta
    folder = common.run.avatars.path / name
    written = {
        "landmarks": outputs.landmarks_file,
        "preview": outputs.preview,
        "grid": outputs.grid,
    }
    if common.json:
        print_json(
            {
                "name": name,
                "folder": str(folder),
                "frames": meta.frames,
                "passthrough": list(meta.passthrough_frames),
                "resumed": prepared.resumed,
                "report": meta.report,
                **{key: str(path) for key, path in written.items() if path is not None},
            }
        )
        return
    passing = f", {len(meta.passthrough_frames)} of them without a face" if meta.passthrough_frames else ""
    put(f"Prepared {name}: {meta.frames} frames{passing}, in {folder}.")
    jitter = (
        f"{prepared.plan.jitter_before:.2f} px before smoothing, {prepared.plan.jitter_after:.2f} px after"
    )
    put(f"Jitter of the box: {jitter}. `musetalk avatars show {name}` says more.")
    for key, path in written.items():
        if path is not None:
            put(f"Wrote the {key} to {path}.")
    for key in ("notes", "warnings"):
        sentences = meta.report.get(key)
        for sentence in sentences if isinstance(sentences, list) else []:
            say(f"{key.removesuffix('s')}: {sentence}")
