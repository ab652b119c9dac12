"""`musetalk prepare-avatar`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from musetalk_cli.cli.options import Common, Overwrite, common_options
from musetalk_cli.cli.render import print_json, progress
from musetalk_cli.errors import InputError


class Smooth(str, Enum):
    """Values of --smooth."""

    off = "off"


class Latents(str, Enum):
    """Values of --latents."""

    fp32 = "fp32"
    fp16 = "fp16"


LatentsOption = Annotated[
    Latents, typer.Option("--latents", help="Format the latents are stored in; fp16 takes half the space.")
]


@common_options(model="v15")
def prepare_avatar(
    common: Common,
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Video, image or folder of images.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new avatar.")],
    landmarks: Annotated[
        Path | None,
        typer.Option("--landmarks", help="JSON with 68 points and the face's box for every frame."),
    ] = None,
    bbox_shift: Annotated[
        int, typer.Option("--bbox-shift", help="Rows by which the middle of the face is taken lower.")
    ] = 0,
    extra_margin: Annotated[
        int | None,
        typer.Option(
            "--extra-margin", help="Rows added below the chin.", show_default="10 for v1.5, 0 for v1"
        ),
    ] = None,
    smooth: Annotated[  # noqa: ARG001 - its one value says that boxes are taken as they come
        Smooth, typer.Option("--smooth", help="Smoothing of the boxes over time.")
    ] = Smooth.off,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Faces encoded at once.")] = 8,
    latents: LatentsOption = Latents.fp32,
    overwrite: Overwrite = False,
) -> None:
    """Prepare a face once, from a video, an image or a folder of images, to make it speak later."""
    if landmarks is None:
        raise InputError(
            "prepare-avatar cannot find faces by itself yet.",
            "Pass --landmarks FILE.json: a list with, for every frame, "
            '{"points": [[x, y] x 68], "box": [x1, y1, x2, y2]} or null.',
        )
    from musetalk_cli.avatar.data import validate_name
    from musetalk_cli.face.landmarks import read_landmarks
    from musetalk_cli.media.video import source_files
    from musetalk_cli.prepare import prepare

    validate_name(name)
    source_files(source)
    faces = read_landmarks(landmarks)
    with progress("preparing") as advance:
        meta = prepare(
            common.run,
            source,
            name,
            faces,
            bbox_shift=bbox_shift,
            extra_margin=extra_margin,
            batch_size=batch_size,
            latents=latents.value,
            overwrite=overwrite,
            progress=advance,
        )
    folder = common.run.avatars.path / name
    if common.json:
        print_json(
            {"name": name, "folder": str(folder), "frames": meta.frames, "skipped": list(meta.skipped_frames)}
        )
        return
    skipped = f", {len(meta.skipped_frames)} without a face left out" if meta.skipped_frames else ""
    typer.echo(f"Prepared {name}: {meta.frames} frames{skipped}, in {folder}.")
