"""A video of a person into an avatar, with the networks that encode its faces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from musetalk_cli.avatar.data import AvatarMeta
from musetalk_cli.avatar.latents import LatentsFormat
from musetalk_cli.avatar.prepare import PrepareOptions, prepare_avatar
from musetalk_cli.config import RunConfig
from musetalk_cli.face.boxes import EXTRA_MARGIN
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.generator import FaceEncoder
from musetalk_cli.nets.bundle import open_bundle

log = logging.getLogger(__name__)


def prepare(
    run: RunConfig,
    source: Path,
    name: str,
    landmarks: Sequence[FaceLandmarks | None],
    *,
    bbox_shift: int = 0,
    extra_margin: int | None = None,
    batch_size: int = 8,
    latents: LatentsFormat = "fp32",
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] | None = None,
) -> AvatarMeta:
    """Prepare an avatar.

    Latents are kept, so they are made in fp32 unless another precision is asked for.

    Args:
        run: Where things are and what computes; without a model it is v1.5.
        source: Video, image or folder of images.
        name: Name of the new avatar.
        landmarks: One entry per frame of the source, None where there is no face.
        bbox_shift: Rows by which the middle of the face is taken lower.
        extra_margin: Rows added below the chin; None is what the model was trained with.
        batch_size: Faces encoded at once.
        latents: The number format the latents are stored in; fp16 takes half the space and is what networks
            in fp16 compute with anyway.
        overwrite: Replace an avatar of that name.
        progress: Told of every frame, and of how many there are where it is known.

    Raises:
        MuseTalkError: Source, landmarks, model, device or folder cannot be used; nothing is left behind.
    """
    if run.precision == "auto":
        log.debug("precision: fp32 (latents are kept)")
        run = replace(run, precision="fp32")
    bundle = open_bundle(run)
    if extra_margin is None:
        extra_margin = EXTRA_MARGIN if bundle.version == "v15" else 0
    return prepare_avatar(
        source,
        run.avatars.path,
        name,
        landmarks=landmarks,
        encode=FaceEncoder(bundle),
        options=PrepareOptions(
            bbox_shift=bbox_shift, extra_margin=extra_margin, batch_size=batch_size, latents=latents
        ),
        model={"version": bundle.version, "name": bundle.family},
        overwrite=overwrite,
        progress=progress,
    )
