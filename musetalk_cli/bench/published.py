"""The published order of work on our own networks, to compare: what the order alone costs.

A chunk is made in steps that wait for each other, in one thread: the window is encoded, all frames are made
in one batch, the faces go to host memory as floating point numbers, and then one frame after the other is
copied as a whole, its face resized, and pasted with PIL. The published code sharpens nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image as Pictures
from torch import Tensor

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.types import Box, Image


class PublishedFrames:
    """Puts faces into frames as the published code does.

    Args:
        avatar: Whose frames.
    """

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._numbers = [number for number, patch in enumerate(avatar.patches) if patch is not None]
        self._masks = {number: _whole_mask(avatar, number) for number in self._numbers}

    def faces(self, decoded: Tensor) -> list[Image]:
        """Bring what the VAE gives to host memory, and round it there.

        Args:
            decoded: `[B, 3, 256, 256]` on any device, -1..1, RGB.

        Returns:
            uint8 `[256, 256, 3]` each, BGR.
        """
        levels = (decoded / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy()
        whole = np.round(levels * 255).astype(np.uint8)[..., ::-1]
        return list(whole)

    def frame(self, face: Image, number: int) -> Image:
        """A whole frame with a face in it.

        Args:
            face: uint8 `[256, 256, 3]`, BGR.
            number: Which frame with a face, counted again from the start after the last.
        """
        source = self._numbers[number % len(self._numbers)]
        patch = self._avatar.patches[source]
        assert patch is not None  # noqa: S101 - only such numbers are kept
        box, crop = patch.face, self._avatar.meta.crop_boxes[source] or patch.face
        picture = self._avatar.frames[source].copy()
        resized = cv2.resize(np.ascontiguousarray(face), (box.width, box.height))
        body = Pictures.fromarray(picture[..., ::-1])
        part = body.crop((crop.x1, crop.y1, crop.x2, crop.y2))
        part.paste(Pictures.fromarray(resized[..., ::-1]), (box.x1 - crop.x1, box.y1 - crop.y1))
        body.paste(part, (crop.x1, crop.y1), self._masks[source])
        return np.ascontiguousarray(np.asarray(body)[..., ::-1])


def _whole_mask(avatar: Avatar, number: int) -> Pictures.Image:
    """The mask of the whole crop; of it a patch keeps what is not empty."""
    patch, crop = avatar.patches[number], avatar.meta.crop_boxes[number]
    assert patch is not None and crop is not None  # noqa: PT018, S101 - a frame with a face has both
    mask = np.zeros((crop.height, crop.width), np.uint8)
    mask[Box(*patch.box).shift(-crop.x1, -crop.y1).slices()] = patch.mask
    return Pictures.fromarray(mask)


def published_chunk(
    encode: Callable[[], object], decode: Callable[[], Tensor], frames: PublishedFrames
) -> tuple[float, float]:
    """Make one chunk.

    Args:
        encode: Encodes its window.
        decode: Makes all its frames; gives what the VAE gives.
        frames: Puts them into frames.

    Returns:
        Seconds to its first frame, and to its last.
    """
    begun = time.perf_counter()
    encode()
    first = 0.0
    for number, face in enumerate(frames.faces(decode())):
        frames.frame(face, number)
        if number == 0:
            first = time.perf_counter() - begun
    return first, time.perf_counter() - begun
