"""Contact sheets: an avatar's frames with box, landmarks and mask drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.avatar.pictures import read_frame, read_mask
from musetalk_cli.face.boxes import NOSE_BRIDGE, add_margin, box_of, crop_box, extent
from musetalk_cli.preparation.plan import Face, Plan
from musetalk_cli.types import Box, Image

TILE = 320
"""Side of a picture on a sheet, in pixels."""
SHEET_FRAMES, COLUMNS = 12, 4
SHIFTS = (-9, -6, -3, 0, 3, 6, 9)
"""Rows of the grid, in hundredths of the face's height."""
GRID_FRAMES = 3

_BOX, _CROP, _POINT, _TEXT = (60, 60, 255), (255, 160, 60), (80, 230, 80), (255, 255, 255)
_TINT = np.array((255, 80, 200), np.float32)
_AROUND = 0.6


def contact_sheet(folder: Path, meta: AvatarMeta, plan: Plan) -> Image:
    """Frames spread over the whole avatar, with the face's box, its landmarks and the mask.

    Args:
        folder: Where the avatar is prepared; its frames have the numbers of the source.
        meta: Its description.
        plan: What became of each frame.

    Returns:
        uint8 `[height, width, 3]`, BGR.
    """
    numbers = _spread(range(meta.frames), SHEET_FRAMES)
    tiles = []
    for number in numbers:
        frame, face = read_frame(folder, meta, plan.first + number), plan.faces[number]
        label = f"{number}  {float(number / meta.fps):.2f} s"
        if face is None:
            tiles.append(_tile(frame, Box(0, 0, meta.width, meta.height), f"{label}  no face"))
            continue
        mask = read_mask(folder, face.crop, number)
        tiles.append(_face_tile(frame, face, mask, label + ("  filled in" if face.interpolated else "")))
    return _sheet(tiles, COLUMNS)


def shift_grid(folder: Path, meta: AvatarMeta, plan: Plan, bbox_shift: int, extra_margin: int) -> Image:
    """The boxes that several values of `--bbox-shift` give, in a few frames.

    Args:
        folder: Where the avatar is prepared; its frames have the numbers of the source.
        meta: Its description.
        plan: What became of each frame.
        bbox_shift: The value the avatar was prepared with.
        extra_margin: The rows added below the chin.

    Returns:
        uint8 `[height, width, 3]`, BGR: a row for each frame, a column for each value.
    """
    tiles = []
    for number in _spread(plan.animated, GRID_FRAMES):
        face = plan.faces[number]
        if face is None:
            continue
        frame = read_frame(folder, meta, plan.first + number)
        for share in SHIFTS:
            shift = bbox_shift + round(face.box.height * share / 100)
            box = box_of(
                extent(face.points).astype(np.int64),
                face.box,
                frame=(meta.width, meta.height),
                bbox_shift=shift,
            )
            label = f"--bbox-shift {shift}"
            if box is None:
                tiles.append(_tile(frame, _around(face.crop), f"{label}  no box"))
            else:
                box = add_margin(box, extra_margin, meta.height)
                tiles.append(_shift_tile(frame, face, box, label))
    return _sheet(tiles, len(SHIFTS))


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """Up to `count` of the numbers, evenly from the first to the last."""
    if len(numbers) <= count:
        return list(numbers)
    return [numbers[round(place * (len(numbers) - 1) / (count - 1))] for place in range(count)]


def _face_tile(frame: Image, face: Face, mask: Image, label: str) -> Image:
    """The surroundings of a face with everything that was decided about it."""
    shown = frame.copy()
    inside = face.crop.clamp(frame.shape[1], frame.shape[0])
    strength = mask[inside.shift(-face.crop.x1, -face.crop.y1).slices()][..., None] / np.float32(255 * 2)
    part = shown[inside.slices()]
    shown[inside.slices()] = np.rint(part * (1 - strength) + _TINT * strength).astype(np.uint8)
    thick = max(1, face.crop.width // 200)
    _rectangle(shown, face.crop, _CROP, thick)
    _rectangle(shown, face.box, _BOX, thick)
    for x, y in face.points:
        cv2.circle(shown, (round(float(x)), round(float(y))), thick, _POINT, -1, cv2.LINE_AA)
    return _tile(shown, _around(face.crop), label)


def _shift_tile(frame: Image, face: Face, box: Box, label: str) -> Image:
    shown = frame.copy()
    thick = max(1, box.width // 150)
    crop = crop_box(box)
    middle = (crop.y1 + crop.y2) // 2
    _rectangle(shown, box, _BOX, thick)
    cv2.line(shown, (box.x1, middle), (box.x2, middle), _CROP, thick)
    nose = face.points[NOSE_BRIDGE]
    cv2.circle(shown, (round(float(nose[0])), round(float(nose[1]))), 2 * thick, _POINT, -1, cv2.LINE_AA)
    return _tile(shown, _around(face.crop), label)


def _rectangle(image: Image, box: Box, colour: tuple[int, int, int], thick: int) -> None:
    cv2.rectangle(image, (box.x1, box.y1), (box.x2 - 1, box.y2 - 1), colour, thick)


def _around(box: Box) -> Box:
    """A square around a box, somewhat larger."""
    half = int(max(box.width, box.height) * _AROUND)
    x, y = (box.x1 + box.x2) // 2, (box.y1 + box.y2) // 2
    return Box(x - half, y - half, x + half, y + half)


def _tile(frame: Image, region: Box, label: str) -> Image:
    """A region of a frame in a square of its own, with a label below."""
    inside = region.clamp(frame.shape[1], frame.shape[0])
    scale = TILE / max(region.width, region.height)
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    size = (max(1, round(inside.width * scale)), max(1, round(inside.height * scale)))
    picture = cv2.resize(frame[inside.slices()], size, interpolation=cv2.INTER_AREA)[:TILE, :TILE]
    x = min(round((inside.x1 - region.x1) * scale), TILE - picture.shape[1])
    y = min(round((inside.y1 - region.y1) * scale), TILE - picture.shape[0])
    tile[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    cv2.rectangle(tile, (0, TILE - 22), (TILE, TILE), (0, 0, 0), -1)
    cv2.putText(tile, label, (6, TILE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _TEXT, 1, cv2.LINE_AA)
    return tile


def _sheet(tiles: Sequence[Image], columns: int) -> Image:
    """Tiles in rows, with black where the last row is not full."""
    columns = min(columns, len(tiles))
    blank = np.zeros((TILE, TILE, 3), np.uint8)
    filled = [*tiles, *[blank] * (-len(tiles) % columns)]
    return np.vstack([np.hstack(filled[row : row + columns]) for row in range(0, len(filled), columns)])
