"""A video of a person into an avatar, with the networks that find, parse and encode its face."""

from __future__ import annotations

from pathlib import Path

from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.config import RunConfig
from musetalk_cli.media.stills import png_of
from musetalk_cli.preparation.inputs import PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.plan import Plan
from musetalk_cli.preparation.preview import contact_sheet, shift_grid
from musetalk_cli.preparation.run import Prepared, Progress, prepare_avatar
from musetalk_cli.run.face_networks import load_face_networks
from musetalk_cli.run.prepare_outputs import PrepareOutputs
from musetalk_cli.sinks.checks import write_whole


def prepare(
    run: RunConfig,
    source: PictureSource,
    name: str,
    options: PrepareOptions | None = None,
    outputs: PrepareOutputs | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare an avatar.

    Latents are kept, so they are made in fp32 unless another precision is asked for.

    Args:
        run: Where things are and what computes; without a model it is v1.5.
        source: What to make it from.
        name: Name of the new avatar.
        options: How to prepare.
        outputs: What finds and parses the face, and what is written besides the avatar.
        overwrite: Replace an avatar of that name.
        progress: Told of every frame.

    Raises:
        MuseTalkError: Source, landmarks, model, device or folder cannot be used; nothing is left behind.
    """
    options, outputs = options or PrepareOptions(), outputs or PrepareOutputs()
    outputs.check(run.avatars.path / name)
    networks, network = load_face_networks(
        run, outputs.detector, outputs.parser, find=source.landmarks is None
    )

    def previews(folder: Path, meta: AvatarMeta, plan: Plan) -> None:
        if outputs.preview is not None:
            write_whole(outputs.preview, png_of(contact_sheet(folder, meta, plan)), "--preview")
        if outputs.grid is not None:
            margin = options.margin(network.version)
            sheet = shift_grid(folder, meta, plan, options.bbox_shift, margin)
            write_whole(outputs.grid, png_of(sheet), "--preview grid")

    return prepare_avatar(
        source,
        run.avatars.path,
        name,
        networks=networks,
        options=options,
        model={"version": network.version, "name": network.family},
        landmarks_file=outputs.landmarks_file,
        before_publishing=previews,
        overwrite=overwrite,
        progress=progress,
    )
