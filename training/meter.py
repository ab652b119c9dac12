"""Reads the five mouth values off a picture, so that a generated mouth can be held against the truth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.faces import Faces
from training.picturing import JUDGED, MOUTH

SIZE = (36, 28)
"""Columns and rows of a mouth as the meter sees it."""
COMPONENTS = 64
RIDGE = 1e-4


def _mouths(images: NDArray[np.uint8], centres: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mouths of faces, small and flat: `[n, 3024]`, 0..1."""
    found = []
    for image, (x, y) in zip(images, centres, strict=True):
        shift = np.array([[1, 0, MOUTH[0] - x], [0, 1, MOUTH[1] - y]], np.float32)
        mouth = cv2.warpAffine(image, shift, (2 * MOUTH[0], 2 * MOUTH[1]), borderMode=cv2.BORDER_REPLICATE)
        found.append(cv2.resize(mouth, SIZE, interpolation=cv2.INTER_AREA).ravel() / 255)
    return np.array(found)


class Meter:
    """Kernel ridge regression from the pictures of one person to their mouth values.

    Args:
        faces: Pictures with known values.
        person: Whose, by the number in `faces.people`.
    """

    def __init__(self, faces: Faces, person: int) -> None:
        chosen = np.flatnonzero(faces.people[:-JUDGED] == person)
        images = np.concatenate([faces.images[number] for number in chosen])
        pixels = _mouths(images, np.repeat(faces.centres[chosen], 4, axis=0))
        values = np.concatenate([faces.values[number] for number in chosen])
        self._mean = pixels.mean(0)
        _, _, axes = np.linalg.svd(pixels - self._mean, full_matrices=False)
        self._axes = axes[:COMPONENTS].T
        self._known = (pixels - self._mean) @ self._axes
        self._width = float(np.median(((self._known[:500, None] - self._known[None, :500]) ** 2).sum(-1)))
        self._bias = values.mean(0)
        kernel = self._kernel(self._known)
        self._weights = np.linalg.solve(kernel + RIDGE * np.eye(len(kernel)), values - self._bias)

    def _kernel(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        squares = (points**2).sum(1)[:, None] + (self._known**2).sum(1) - 2 * points @ self._known.T
        near: NDArray[np.float64] = np.exp(-np.maximum(squares, 0) / self._width)
        return near

    def read(self, images: NDArray[np.uint8], centres: NDArray[np.float32]) -> NDArray[np.float64]:
        """Mouth values of faces `[n, 256, 256, 3]` whose mouths are at `centres`: `[n, 5]`."""
        points = (_mouths(images, centres) - self._mean) @ self._axes
        values: NDArray[np.float64] = self._kernel(points) @ self._weights + self._bias
        return values
