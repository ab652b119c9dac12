"""What an avatar is in memory: its description, its pictures and its latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2

from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.types import LATENT_SIZE, Box, Image

if TYPE_CHECKING:
    from torch import Tensor

LATENT_SHAPE = (8, LATENT_SIZE, LATENT_SIZE)
"""Masked and reference latents of one face, joined on channels."""

LATENT_BYTES = 4 * math.prod(LATENT_SHAPE)
"""Bytes of one face's latents in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The region of a frame that can change: where the mask is not zero and the face lies.

    Attributes:
        box: The region in the frame: the smallest box around those pixels; one pixel at the face's corner
            where the mask is zero everywhere.
        face: Where the generated face goes, in the frame; holds `box`.
        mask: uint8 `[box.height, box.width]`, 0 keeps the frame, 255 takes the face.
    """

    box: Box
    face: Box
    mask: Image

    @classmethod
    def cut(cls, mask: Image, face: Box, crop: Box, frame: tuple[int, int]) -> Patch:
        """Cut the patch out of a crop's mask.

        Args:
            mask: uint8 `[crop.height, crop.width]`.
            face: The face's box, inside the frame.
            crop: The crop's box; may leave the frame.
            frame: Width and height of the frame.
        """
        region = crop.intersect(face).clamp(*frame)
        inside = mask[region.shift(-crop.x1, -crop.y1).slices()] if not region.empty else mask[:0]
        x, y, width, height = cv2.boundingRect(inside) if inside.size else (0, 0, 0, 0)
        if not width:
            return cls(Box(face.x1, face.y1, face.x1 + 1, face.y1 + 1), face, mask[:1, :1] * 0)
        box = Box(x, y, x + width, y + height)
        return cls(box.shift(region.x1, region.y1), face, inside[box.slices()].copy())


@dataclass(frozen=True, slots=True)
class AvatarMemory:
    """What a loaded avatar takes, in bytes.

    Attributes:
        device_bytes: Patches of the frames, their masks, and the latents.
        host_bytes: Full frames and masks.
    """

    device_bytes: int
    host_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Avatar:
    """An avatar in host memory; entry `i` of every list belongs to forward frame `i`.

    Attributes:
        meta: Its description.
        frames: uint8 `[height, width, 3]` each, BGR.
        patches: What can change in each frame; None for a pass-through frame.
        latents: float32 `[n, 8, 32, 32]`, masked and reference latents times the scaling factor; what a
            pass-through frame's are does not matter.
    """

    meta: AvatarMeta
    frames: list[Image]
    patches: list[Patch | None]
    latents: Tensor

    def memory(self) -> AvatarMemory:
        """What the avatar takes on the device and on the host."""
        return memory_of(self.meta, pixels_of(self.patches))


def pixels_of(patches: Sequence[Patch | None]) -> int:
    """How many pixels of an avatar's frames can change."""
    return sum(patch.mask.size for patch in patches if patch is not None)


def memory_of(meta: AvatarMeta, pixels: int) -> AvatarMemory:
    """What an avatar takes, told without its pictures.

    Args:
        meta: Its description.
        pixels: How many pixels of its frames can change.
    """
    pictures = meta.frames * meta.width * meta.height * 3
    return AvatarMemory(4 * pixels + meta.frames * LATENT_BYTES, pictures + pixels)
