"""What makes a frame good or bad to speak with: the mouth, the pose, the sharpness, what covers the face."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.types import Box, Image

CLOSED = 0.06
"""A mouth is closed where its opening is less than this share of its width."""
PROFILE = 0.35
"""A face is seen from the side where the nose divides it in two parts of which one is under this share."""
COVERED = 0.35
"""A mouth is covered where a parser finds lips on less than this share of the pixels inside its outline."""
UNSURE = 0.5
"""A mouth is likely covered where the mean confidence of its points is under this share of the jaw's."""

_JAW_SIDES = (1, 15)
_NOSE_TIP = 30
_MOUTH = slice(48, 68)
_INNER_TOP, _INNER_BOTTOM = [61, 62, 63], [67, 66, 65]
_MOUTH_SIDES = (60, 64)
_OUTER_LIPS = slice(48, 60)
_JAW = slice(0, 17)
_LIP_LABELS = (11, 12, 13)


def opening(points: NDArray[np.floating]) -> float:
    """How far a mouth is open: the mean gap between the inner lips over the mouth's inner width.

    Args:
        points: `[68, 2]`.
    """
    gap = np.linalg.norm(points[_INNER_BOTTOM] - points[_INNER_TOP], axis=1).mean()
    width = np.linalg.norm(points[_MOUTH_SIDES[1]] - points[_MOUTH_SIDES[0]])
    return float(gap / max(width, 1e-6))


def is_profile(points: NDArray[np.floating]) -> bool:
    """True where the face is turned far to one side: the nose lies near one side of the jaw.

    Args:
        points: `[68, 2]`.
    """
    left, right = points[list(_JAW_SIDES)]
    axis = right - left
    share = float((points[_NOSE_TIP] - left) @ axis / max(float(axis @ axis), 1e-6))
    return min(share, 1 - share) < PROFILE


def is_unsure_of_mouth(confidence: NDArray[np.floating]) -> bool:
    """True where the network is much less sure of the mouth than of the jaw: something may cover it.

    Args:
        confidence: `[68]`.
    """
    return bool(confidence[_MOUTH].mean() < UNSURE * confidence[_JAW].mean())


def is_mouth_covered(labels: Image, points: NDArray[np.floating], crop: Box) -> bool:
    """True where a parser finds no lips inside the outline of the lips: something is in front of them.

    Lips outside the crop are not covered.

    Args:
        labels: uint8 `[512, 512]`, BiSeNet labels of the crop.
        points: `[68, 2]` in pixels of the frame.
        crop: The crop's box in the frame.
    """
    scale = np.array([labels.shape[1] / crop.width, labels.shape[0] / crop.height])
    outline = np.rint((points[_OUTER_LIPS] - (crop.x1, crop.y1)) * scale).astype(np.int32)
    inside = np.zeros_like(labels)
    cv2.fillPoly(inside, [outline], 1)
    lips = np.isin(labels, _LIP_LABELS) & (inside > 0)
    return bool(lips.sum() < COVERED * inside.sum())


def sharpness(face: Image) -> float:
    """How sharp a face is: the standard deviation of its Laplacian in levels, to two digits.

    Told on the 256 x 256 pixels the networks see, so that it compares between faces of any size: an
    enlarged or blurred face has little.

    Args:
        face: uint8 `[256, 256, 3]`, BGR.
    """
    grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
    return round(float(cv2.Laplacian(grey, cv2.CV_64F).std()), 2)
