"""Pixels of any depth as they are seen: in 8 bits, over black, upright."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.types import Image

Deep = NDArray[np.uint8] | NDArray[np.uint16]
DEEPEST = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}

_AT_ONCE = 1 << 20
"""Pixels that are computed at once: wide numbers of a whole picture would take ten times its memory."""


def in_8_bits(image: Deep) -> Image:
    """`[height, width, channels]` of any depth in 8 bits, rounded."""
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    return _by_rows(image, image.shape[2], lambda part: (part.astype(np.uint32) + 128) // 257)


def on_black(image: Deep) -> Image:
    """Blue, green, red and alpha, of any depth, to what is seen over black in 8 bits."""
    deepest = DEEPEST[image.dtype]

    def seen(part: Deep) -> NDArray[np.uint64]:
        whole = part[..., :3].astype(np.uint64) * part[..., 3:]
        return (whole * 255 + deepest * deepest // 2) // (deepest * deepest)

    return _by_rows(image, 3, seen)


def upright(image: Image, orientation: int) -> Image:
    """Turn an image as the EXIF orientation, 1 to 8, says."""
    if orientation in {5, 6, 7, 8}:
        image = image.transpose(1, 0, 2)
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    return image[:, ::-1] if orientation in {2, 3, 6, 7} else image


def shrink(image: Image, size: tuple[int, int]) -> Image:
    """The image at a smaller size, columns and rows, each pixel the mean of those it covers."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _by_rows(image: Deep, channels: int, function: Callable[[Deep], NDArray[np.unsignedinteger]]) -> Image:
    """Apply a function of single pixels to a few rows at a time; its results lie in 0..255."""
    done = np.empty((*image.shape[:2], channels), np.uint8)
    step = max(1, _AT_ONCE // image.shape[1])
    for first in range(0, image.shape[0], step):
        done[first : first + step] = function(image[first : first + step])
    return done
