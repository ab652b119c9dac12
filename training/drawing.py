"""Smooth shapes with soft edges on a picture that is twice as fine as the result."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.types import Image

FINENESS = 2
"""Pixels of the canvas per pixel of the result."""
_FRACTION_BITS = 4

Points = NDArray[np.float64]
"""`[n, 2]`, x and y in pixels of the result."""
Colour = tuple[int, int, int]
"""Blue, green, red, 0..255."""


def curve(points: object, *, closed: bool = True, steps: int = 8) -> Points:
    """A Catmull-Rom curve through points.

    Args:
        points: `[n, 2]`.
        closed: Whether the last point is joined to the first.
        steps: Points of the result for each one given.
    """
    knots = np.asarray(points, float)
    if closed:
        padded = np.concatenate([knots[-1:], knots, knots[:2]])
    else:
        padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    a, b, c, d = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    pieces = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * (b - c) + d - a) * t**3)
    found = pieces.transpose(1, 0, 2).reshape(-1, 2)
    return found if closed else np.concatenate([found, knots[-1:]])


def mirrored(points: object) -> Points:
    """A shape given by its right half, from top to bottom: both halves, clockwise."""
    half = np.asarray(points, float)
    other = half[::-1] * (-1, 1)
    first, last = int(half[-1, 0] == 0), len(other) - int(half[0, 0] == 0)
    return np.concatenate([half, other[first:last]])


def ellipse(x: float, y: float, width: float, height: float, *, points: int = 48) -> Points:
    """An ellipse by its centre and half axes."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return np.stack([x + width * np.cos(angle), y + height * np.sin(angle)], 1)


def shade(colour: Colour, factor: float) -> Colour:
    """The colour darker (below 1) or brighter."""
    blue, green, red = (int(np.clip(value * factor, 0, 255)) for value in colour)
    return blue, green, red


class Canvas:
    """A picture that shapes are laid on, one over the other.

    Args:
        width: Columns of the result.
        height: Rows of the result.
        ground: What is there before; of the canvas's own size, see `pixels`.
    """

    def __init__(self, width: int, height: int, ground: Image | None = None) -> None:
        shape = (height * FINENESS, width * FINENESS, 3)
        self.pixels: Image = np.zeros(shape, np.uint8) if ground is None else ground.copy()
        self._size = (width, height)

    def fill(
        self, points: Points, colour: Colour, *, within: Points | None = None, alpha: float = 1.0
    ) -> None:
        """Fill a shape.

        Args:
            points: Its outline.
            colour: Of the whole shape.
            within: Another shape outside which nothing is drawn.
            alpha: How much of the colour covers what was there.
        """
        if within is None and alpha == 1:
            cv2.fillPoly(self.pixels, [_fixed(points)], colour, cv2.LINE_AA, _FRACTION_BITS)
            return
        low = np.maximum(np.floor(points.min(0) * FINENESS).astype(int) - 2, 0)
        high = np.ceil(points.max(0) * FINENESS).astype(int) + 2
        part = self.pixels[low[1] : high[1], low[0] : high[0]]
        if not part.size:
            return
        cover = _mask(points, low, part.shape[:2])
        if within is not None:
            cover *= _mask(within, low, part.shape[:2])
        part[:] = np.rint(part + (cover * alpha)[..., None] * (np.array(colour, np.float32) - part)).astype(
            np.uint8
        )

    def line(self, points: Points, colour: Colour, thickness: float) -> None:
        """Draw along points."""
        width = max(1, round(thickness * FINENESS))
        cv2.polylines(self.pixels, [_fixed(points)], False, colour, width, cv2.LINE_AA, _FRACTION_BITS)

    def result(self) -> Image:
        """The picture, uint8 `[height, width, 3]`, BGR."""
        return np.asarray(cv2.resize(self.pixels, self._size, interpolation=cv2.INTER_AREA), np.uint8)


def _fixed(points: Points) -> NDArray[np.int32]:
    """Points in OpenCV's numbers; its pixels have their centres, ours their corners, at whole numbers."""
    return np.rint((points * FINENESS - 0.5) * (1 << _FRACTION_BITS)).astype(np.int32)


def _mask(points: Points, origin: NDArray[np.int_], shape: tuple[int, int]) -> NDArray[np.float32]:
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [_fixed(points - origin / FINENESS)], 255, cv2.LINE_AA, _FRACTION_BITS)
    return np.asarray(mask / 255, np.float32)
