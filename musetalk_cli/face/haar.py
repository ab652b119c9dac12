"""Faces without any weights: OpenCV's cascade for the place, a canonical face for the points in it.

The rough way: it sees frontal faces only, and neither the mouth's shape nor the head's tilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.errors import MuseTalkError
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.types import Box, Image

CASCADE = "haarcascade_frontalface_alt2.xml"
SHORT_SIDE = 540
"""Frames are searched at this size: a face found there is sharp enough for a box of whole pixels."""

_SCALE_STEP = 1.1
_NEIGHBOURS, _NEIGHBOURS_NEAR = 6, 4
"""Windows that must agree on a face: more in a whole frame than where one was a frame ago.

Faces from the front mostly have 13 and more, turned ones from 7 on; a face that lies on its side has 4 to 9.
"""
_ROUNDED = 0.05
"""Pixels by which a canonical face differs from itself after rounding, with room."""
_SMALLEST = 0.1
"""Side of the smallest face, as a share of the frame's shorter side."""
_NEAR = 0.4
"""How far around a face it is looked for in the next frame, in its sides."""
_GROWTH = 1.3
"""How much larger or smaller it may be there."""

_LEFT_HALF = (
    (0, 0.090, 0.304), (1, 0.095, 0.456), (2, 0.106, 0.585), (3, 0.135, 0.710), (4, 0.195, 0.825),
    (5, 0.280, 0.920), (6, 0.365, 0.995), (7, 0.430, 1.038), (17, 0.243, 0.231), (18, 0.289, 0.195),
    (19, 0.334, 0.186), (20, 0.380, 0.195), (21, 0.425, 0.218), (31, 0.446, 0.624), (32, 0.471, 0.637),
    (36, 0.264, 0.387), (37, 0.301, 0.345), (38, 0.367, 0.345), (39, 0.405, 0.387), (40, 0.367, 0.423),
    (41, 0.301, 0.423), (48, 0.368, 0.799), (49, 0.412, 0.763), (50, 0.456, 0.747), (58, 0.456, 0.846),
    (59, 0.412, 0.835), (60, 0.391, 0.797), (61, 0.440, 0.791), (67, 0.440, 0.791),
)  # fmt: skip
_MIDDLE = (
    (8, 1.050), (27, 0.396), (28, 0.450), (29, 0.510), (30, 0.578), (33, 0.647), (51, 0.759), (57, 0.848),
    (62, 0.788), (66, 0.788),
)  # fmt: skip
_OTHER_SIDE = {
    **{index: 16 - index for index in range(8)},
    **{index: 43 - index for index in range(17, 22)},
    31: 35, 32: 34, 36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46,
    48: 54, 49: 53, 50: 52, 58: 56, 59: 55, 60: 64, 61: 63, 67: 65,
}  # fmt: skip


def _canonical() -> NDArray[np.float64]:
    """Both halves of the canonical face: `[68, 2]` in sides of the cascade's square."""
    points = np.zeros((68, 2))
    for index, x, y in _LEFT_HALF:
        points[index] = x, y
        points[_OTHER_SIDE[index]] = 1 - x, y
    for index, y in _MIDDLE:
        points[index] = 0.5, y
    return points


CANONICAL_FACE = _canonical()
"""The 68 points of a frontal face with a closed mouth, in sides of the square that the cascade gives.

The proportions are those of the embedded drawn faces with eyes, mouth and chin moved to where they lie in
the cascade's square on photographed faces: 0.385, 0.795 and 1.05 of its side.
"""


def are_canonical(faces: Sequence[FaceLandmarks | None]) -> bool:
    """True where most of the faces are the canonical one, moved and scaled: nobody has seen their mouths."""
    there = [face.points for face in faces if face is not None]
    return bool(there) and sum(map(_is_canonical, there)) > len(there) / 2


def _is_canonical(points: NDArray[np.float64]) -> bool:
    low, high = CANONICAL_FACE.min(axis=0), CANONICAL_FACE.max(axis=0)
    side = np.ptp(points, axis=0) / (high - low)
    expected = (CANONICAL_FACE - low) * side + points.min(axis=0)
    return bool(np.abs(points - expected).max() < _ROUNDED)


class _Square(NamedTuple):
    """A face as the cascade sees it, in pixels of the searched picture."""

    x: int
    y: int
    side: int


class HaarFinder:
    """Finds frontal faces of any number.

    The first frame of every batch is searched as a whole, the others around the faces that it has; where one
    of them is gone, the frame is searched as a whole again.

    Attributes:
        name: What `avatar.json` records.
        batch: Frames that are passed at once: how long a face that comes in may go unnoticed.
        sees_mouth: False: the points' mouth is that of the canonical face.
        cutoff_hz: How fast a motion may be that smoothing keeps: low, for the boxes are noisy.

    Raises:
        MuseTalkError: OpenCV carries no cascade, as 5.x does not.
    """

    name = "haar"
    batch = 8
    sees_mouth = False
    cutoff_hz = 1.0

    def __init__(self) -> None:
        folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
        path = Path(folder) / CASCADE
        if not (hasattr(cv2, "CascadeClassifier") and path.is_file()):
            raise MuseTalkError(
                f"OpenCV {cv2.__version__} carries no {CASCADE}.",
                "Install opencv-python 4.x, fetch DWPose (musetalk models download dwpose), "
                "or pass --landmarks FILE.",
            )
        self._cascade = cv2.CascadeClassifier(str(path))

    def find(
        self,
        frames: Sequence[Image],
        previous: Sequence[FaceLandmarks],  # noqa: ARG002 - every batch starts with a whole frame
    ) -> list[list[FaceLandmarks]]:
        """The faces of each frame, largest first.

        Args:
            frames: uint8 `[height, width, 3]` each, BGR, of one size.
            previous: The faces of the frame before; not needed here.
        """
        found: list[list[FaceLandmarks]] = []
        squares: list[_Square] = []
        for number, frame in enumerate(frames):
            grey, scale = _search_size(frame)
            near = [self._near(grey, square) for square in squares] if number else []
            # Two that are found at one place have become one: the other is gone.
            if near and all(near) and len(set(near)) == len(near):
                squares = [square for square in near if square is not None]
            else:
                squares = self._everywhere(grey)
            squares.sort(key=lambda square: (-square.side, square.x, square.y))
            found.append([_face_in(square, scale) for square in squares])
        return found

    def _everywhere(self, grey: Image) -> list[_Square]:
        smallest = max(20, int(min(grey.shape) * _SMALLEST))
        whole = Box(0, 0, grey.shape[1], grey.shape[0])
        return self._detect(grey, whole, _NEIGHBOURS, smallest, 0)

    def _near(self, grey: Image, square: _Square) -> _Square | None:
        """The same face a frame later; None where it is gone."""
        x, y, side = square
        margin = _NEAR * side
        around = Box(int(x - margin), int(y - margin), int(x + side + margin), int(y + side + margin))
        region = around.clamp(grey.shape[1], grey.shape[0])
        found = self._detect(grey, region, _NEIGHBOURS_NEAR, int(side / _GROWTH), int(side * _GROWTH))
        return min(found, key=lambda other: abs(other.x - x) + abs(other.y - y), default=None)

    def _detect(
        self, grey: Image, region: Box, neighbours: int, smallest: int, largest: int
    ) -> list[_Square]:
        """The squares in a region of a picture; `largest` 0 is any size."""
        found = self._cascade.detectMultiScale(
            grey[region.slices()],
            _SCALE_STEP,
            neighbours,
            minSize=(smallest, smallest),
            maxSize=(largest, largest),
        )
        squares = np.asarray(found, np.int64).reshape(-1, 4)
        return [_Square(int(x) + region.x1, int(y) + region.y1, int(side)) for x, y, side, _ in squares]


def _search_size(frame: Image) -> tuple[Image, float]:
    """A frame in grey at the size it is searched in, and how much smaller that is."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = min(1.0, SHORT_SIDE / min(grey.shape))
    if scale < 1:
        size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8), scale


def _face_in(square: _Square, scale: float) -> FaceLandmarks:
    """The canonical face in a square, to a hundredth of a pixel of the frame."""
    x, y, side = square.x / scale, square.y / scale, square.side / scale
    points = np.round(CANONICAL_FACE * side + (x, y), 2)
    return FaceLandmarks(points, Box(int(x), int(y), int(x + side), int(y + side)))
