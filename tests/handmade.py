"""Avatars with pass-through frames, made without the code that prepares them."""

from dataclasses import replace

import numpy as np
from safetensors.numpy import save_file

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.media.stills import write_png


def write_avatar(folder, meta: AvatarMeta, frames, masks, latents, idle=()):
    """Write an avatar's folder file by file; `masks` has None where a frame has none."""
    place = folder / meta.name
    for name, pictures in (("full_imgs", frames), ("masks", masks), ("idle", idle)):
        if name != "idle" or len(pictures):
            (place / name).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            if picture is not None:
                write_png(place / name / f"{number:08d}.png", picture)
    save_file({"latents": np.ascontiguousarray(latents, np.float32)}, place / "latents.safetensors")
    (place / "avatar.json").write_text(meta.to_json())
    return place


def without_faces(meta: AvatarMeta, numbers) -> AvatarMeta:
    """The description with some frames passed through."""
    return replace(
        meta,
        boxes=tuple(None if number in numbers else box for number, box in enumerate(meta.boxes)),
        crop_boxes=tuple(None if number in numbers else box for number, box in enumerate(meta.crop_boxes)),
    )


def passed_through(avatar: Avatar, numbers) -> Avatar:
    """An avatar in memory with some frames passed through; their latents would spoil any use of them."""
    latents = avatar.latents.clone()
    latents[sorted(numbers)] = float("nan")
    patches = [None if number in numbers else patch for number, patch in enumerate(avatar.patches)]
    return replace(avatar, meta=without_faces(avatar.meta, numbers), patches=patches, latents=latents)
