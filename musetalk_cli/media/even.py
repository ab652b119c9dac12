"""Even sizes, for whatever halves the colours of a picture."""

from __future__ import annotations

import numpy as np

from musetalk_cli.types import Image


def even(length: int) -> int:
    """The length, or one more where it is odd."""
    return length + length % 2


def to_even(image: Image) -> Image:
    """A picture `[height, width, 3]` of even sizes: the last row or column comes twice where they are odd."""
    height, width = image.shape[:2]
    if height % 2 == width % 2 == 0:
        return image
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
