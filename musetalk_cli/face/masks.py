"""Which pixels of the crop a generated face replaces, and how strongly."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from musetalk_cli.errors import InputError
from musetalk_cli.face.settings import PARSING_SIZE, MaskMode, MaskShape
from musetalk_cli.types import Box, Image

_SKIN, _NOSE, _MOUTH, _UPPER_LIP, _LOWER_LIP, _NECK = 1, 10, 11, 12, 13, 14
_LIPS = (_MOUTH, _UPPER_LIP, _LOWER_LIP)
_OUTLINE = 27


DEFAULT_SHAPE = MaskShape()


def mask_from_parsing(labels: Image, box: Box, crop: Box, shape: MaskShape = DEFAULT_SHAPE) -> Image:
    """The blending mask of a face whose crop was parsed.

    Args:
        labels: uint8 `[512, 512]`, BiSeNet's CelebAMask-HQ labels of the crop.
        box: The face's box in the frame.
        crop: The crop's box in the frame; may leave the frame.
        shape: What the mask keeps.

    Returns:
        uint8 `[crop.height, crop.width]`, 0 keeps the frame, 255 takes the face. Without feather there still
        are values between them, since the label map is resized by a bicubic filter.

    Raises:
        InputError: The labels have another shape.
    """
    if labels.shape != (PARSING_SIZE, PARSING_SIZE):
        raise InputError(
            f"A label map has the shape {list(labels.shape)}, not {[PARSING_SIZE, PARSING_SIZE]}."
        )
    mode = shape.mode or "jaw"
    kept = _jaw(labels, shape.cheek_width) if mode == "jaw" else np.isin(labels, _labels_of(mode))
    whole = Pictures.fromarray(kept.astype(np.uint8) * 255)
    return _finish(np.asarray(whole.resize((crop.width, crop.height))), box, crop, shape)


def mask_from_outline(
    points: NDArray[np.floating], box: Box, crop: Box, shape: MaskShape = DEFAULT_SHAPE
) -> Image:
    """The blending mask of a face known by its landmarks only: the hull of jaw and brows, filled.

    Args:
        points: `[68, 2]`, x and y in pixels of the frame.
        box: The face's box in the frame.
        crop: The crop's box in the frame; may leave the frame.
        shape: Upper boundary and feather of the mask; its mode and cheek width are for label maps.

    Returns:
        uint8 `[crop.height, crop.width]`, 0 keeps the frame, 255 takes the face.
    """
    outline = np.rint(points[:_OUTLINE] - (crop.x1, crop.y1)).astype(np.int32)
    filled = np.zeros((crop.height, crop.width), np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(outline), 255)
    return _finish(filled, box, crop, shape)


def _labels_of(mode: MaskMode) -> tuple[int, ...]:
    return (_SKIN, *_LIPS, _NECK) if mode == "neck" else (_SKIN, *_LIPS)


def _jaw(labels: Image, cheek_width: tuple[int, int]) -> NDArray[np.bool_]:
    grown = cv2.dilate((labels == _SKIN).astype(np.uint8), _jaw_kernel())
    narrowed = cv2.erode(grown, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (35, 3)), iterations=2)
    columns = np.arange(PARSING_SIZE)
    middle = PARSING_SIZE // 2
    cheeks = (columns <= middle - cheek_width[0]) | (columns >= middle + cheek_width[1])
    skin = np.where(cheeks, narrowed, grown).astype(bool)
    kept: NDArray[np.bool_] = (skin & (labels != _NOSE)) | np.isin(labels, _LIPS)
    return kept


def _jaw_kernel() -> Image:
    """33 x 33: a triangle of rows 10..20 that widens to the 21 columns of the rows below it.

    Dilation takes the pixels under the kernel, so skin grows 16 rows up, 10 columns to the sides, and 6 rows
    down, where it tapers to one column.
    """
    kernel = np.zeros((33, 33), np.uint8)
    for row in range(10, 33):
        half = min(row - 10, 10)
        kernel[row, 16 - half : 16 + half + 1] = 1
    return kernel


def _finish(mask: Image, box: Box, crop: Box, shape: MaskShape) -> Image:
    """Keep what lies inside the face's box and below the upper boundary, and soften the edge.

    The blur's deviation is the one OpenCV derives from the kernel's side, `0.3 * ((side - 1) / 2 - 1) + 0.8`.
    """
    kept = np.zeros_like(mask)
    lower = Box(0, int(crop.height * shape.upper_boundary), crop.width, crop.height)
    inside = box.shift(-crop.x1, -crop.y1).intersect(lower)
    if not inside.empty:
        kept[inside.slices()] = mask[inside.slices()]
    side = int(shape.feather * crop.width // 2 * 2) + 1
    return np.asarray(cv2.GaussianBlur(kept, (side, side), 0), np.uint8)
