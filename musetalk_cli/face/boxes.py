"""From face landmarks to the box that is regenerated, and to the crop that is blended."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.types import Box

POINTS = 68
"""Points of a face in the 68-point order."""
NOSE_BRIDGE = 29
"""The point that is the middle of the face's height."""
MIN_FACE = 4
"""Smallest side in pixels of a box that can be used; the crop of a smaller one need not contain it."""


def face_box(
    points: NDArray[np.floating],
    detection: Box | None,
    *,
    frame: tuple[int, int],
    bbox_shift: int = 0,
) -> Box | None:
    """The face's box, inside the frame.

    The published rule: with the nose bridge moved down by `bbox_shift`, the box reaches as far above it
    as the lowest point lies below it, and spans the points from side to side. Where that box is empty or
    starts left of the frame, the detector's box is used. Without a detection there is no face.
    The result is clamped to the frame, which the published code does not do.

    Args:
        points: `[68, 2]`, x and y in pixels of the frame; truncated to integers first.
        detection: The face detector's box, or None where it saw no face.
        frame: Width and height of the frame.
        bbox_shift: Rows by which the nose bridge is taken lower (more than 0) or higher.

    Returns:
        The box, or None where there is no face in the frame.

    Raises:
        ValueError: `points` has another shape.
    """
    if points.shape != (POINTS, 2):
        raise ValueError(f"points must be [{POINTS}, 2], not {list(points.shape)}")
    if detection is None:
        return None
    return box_of(extent(points).astype(np.int64), detection, frame=frame, bbox_shift=bbox_shift)


def extent(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """What the box's rule takes of a face's points: left, right, middle (the nose bridge) and bottom."""
    x, y = points[:, 0], points[:, 1]
    return np.array([x.min(), x.max(), y[NOSE_BRIDGE], y.max()], np.float64)


def box_of(
    whole: NDArray[np.integer], detection: Box, *, frame: tuple[int, int], bbox_shift: int = 0
) -> Box | None:
    """The box by the published rule, as `face_box` gives it, from an extent in whole pixels.

    Args:
        whole: Left, right, middle and bottom.
        detection: Taken where the rule's box is empty or starts left of the frame.
        frame: Width and height of the frame.
        bbox_shift: Rows by which the middle is taken lower (more than 0) or higher.

    Returns:
        The box, or None where there is no face in the frame.
    """
    left, right, middle, bottom = (int(side) for side in whole)
    middle += bbox_shift
    box = Box(left, max(0, middle - (bottom - middle)), right, bottom)
    if box.empty or box.x1 < 0:
        box = detection
    box = box.clamp(*frame)
    return None if box.empty else box


def box_around(points: NDArray[np.floating]) -> Box:
    """The smallest box of whole pixels that holds points `[n, 2]`; may leave the frame."""
    low, high = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def add_margin(box: Box, extra_margin: int, frame_height: int) -> Box:
    """The box with `extra_margin` more rows at the bottom, as far as the frame goes."""
    return box._replace(y2=min(box.y2 + extra_margin, frame_height))


def crop_box(box: Box) -> Box:
    """The square around a face's box that is parsed and blended; it may leave the frame.

    The published rule: half its side is `int(max(width, height) // 2 * 1.5)`, its centre the box's in
    integer halves.
    """
    x, y = (box.x1 + box.x2) // 2, (box.y1 + box.y2) // 2
    half = int(max(box.width, box.height) // 2 * 1.5)
    return Box(x - half, y - half, x + half, y + half)
