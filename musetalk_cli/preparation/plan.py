"""From the faces of a whole clip to the box of every frame: gaps, smoothing, and where the loop turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.face.boxes import MIN_FACE, add_margin, box_around, box_of, crop_box, extent, face_box
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.motion import find_cuts, gaps, hold_steady, interpolate, jitter, smooth
from musetalk_cli.face.tracks import shots
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.types import Box

_TRIM_SHARE = 0.25
"""Share of the clip at each end within which a better place to turn is looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """The face of one frame of the avatar.

    Attributes:
        points: float64 `[68, 2]`, smoothed and filled in, in pixels of the frame.
        box: The box that is regenerated.
        crop: The box that is blended; may leave the frame.
        interpolated: True where no face was seen and it was filled in.
    """

    points: NDArray[np.float64]
    box: Box
    crop: Box
    interpolated: bool


@dataclass(frozen=True, slots=True)
class Seam:
    """Where the loop turns, and how much the picture moves there, in levels; less is less seen.

    Attributes:
        start: Motion between the avatar's first frame and its second.
        end: Motion between the avatar's last frame but one and its last.
        best_start: The source's quietest first frame within its first quarter.
        best_end: The source's quietest last frame within its last quarter.
    """

    start: float
    end: float
    best_start: int
    best_end: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What becomes of each frame of the source.

    Attributes:
        first: The source's frame that is the avatar's frame 0.
        faces: One entry per frame of the avatar: its face, or None where the frame passes through as it is.
        cuts: Frames of the source that start a new shot.
        seam: How the loop turns, and where it could.
        jitter_before: How much the centre of the box trembles without smoothing, in pixels.
        jitter_after: The same for the boxes as they are.
    """

    first: int
    faces: list[Face | None]
    cuts: list[int]
    seam: Seam
    jitter_before: float
    jitter_after: float

    @property
    def animated(self) -> list[int]:
        """The avatar's frames that have a face."""
        return [number for number, face in enumerate(self.faces) if face is not None]


def make_plan(
    faces: Sequence[FaceLandmarks | None],
    differences: Sequence[float],
    *,
    fps: Fraction,
    size: tuple[int, int],
    options: PrepareOptions,
    extra_margin: int,
    cutoff_hz: float,
) -> Plan:
    """Decide the box of every frame.

    Args:
        faces: The chosen person's face in every frame of the source, None where it was not seen.
        differences: How much each frame differs from the one before it, in levels.
        fps: Frames per second of the source.
        size: Width and height of every frame.
        options: How to prepare.
        extra_margin: Rows added below the chin.
        cutoff_hz: How fast a motion may be that smoothing keeps, in Hz.
    """
    cuts = find_cuts(differences)
    raw = [_rule(face, size, options.bbox_shift) for face in faces]
    seen = [box is not None for box in raw]
    points = np.array([face.points if face else np.zeros((68, 2)) for face in faces], np.float64)
    filled = seen.copy()
    for start, end in shots(cuts, len(faces)):
        for gap in gaps(seen, start, end):
            if Fraction(gap[1] - gap[0]) / fps <= Fraction(options.max_gap).limit_denominator(10_000):
                interpolate(points, gap)
                filled[gap[0] : gap[1]] = [True] * (gap[1] - gap[0])
    boxes: list[Box | None] = [None] * len(faces)
    runs = _runs(filled, cuts)
    detections = [face.detection if face and ok else None for face, ok in zip(faces, seen, strict=True)]
    for start, end in runs:
        part = slice(start, end)
        if options.smooth:
            points[part] = smooth(points[part], cutoff_hz / float(fps))
        found = _boxes(points[part], detections[part], size, options)
        boxes[part] = [box and add_margin(box, extra_margin, size[1]) for box in found]
    if options.constant_size:
        boxes = _one_size(boxes, size)
    best = _quietest(differences, cuts, len(faces))
    first, last = best if options.trim == "auto" else (0, len(faces) - 1)
    planned = [
        None if box is None else Face(points[number], box, crop_box(box), interpolated=not seen[number])
        for number, box in enumerate(boxes)
    ]
    moved = (differences[first + 1], differences[last]) if last > first else (0.0, 0.0)
    return Plan(
        first,
        planned[first : last + 1],
        cuts,
        Seam(*moved, *best),
        _jitter_of(raw, runs),
        _jitter_of(boxes, runs),
    )


def _rule(face: FaceLandmarks | None, size: tuple[int, int], bbox_shift: int) -> Box | None:
    """The box of one frame by the published rule, if it is one that can be used."""
    box = face and face_box(face.points, face.detection, frame=size, bbox_shift=bbox_shift)
    return box if box and _usable(box) else None


def _usable(box: Box) -> bool:
    return min(box.width, box.height) >= MIN_FACE


def _runs(filled: Sequence[bool], cuts: Sequence[int]) -> list[tuple[int, int]]:
    """First frame and one past the last of every stretch with a face, within shots."""
    runs = []
    for start, end in shots(cuts, len(filled)):
        begin = start
        for number in range(start, end + 1):
            if number == end or not filled[number]:
                if number > begin:
                    runs.append((begin, number))
                begin = number + 1
    return runs


def _boxes(
    points: NDArray[np.float64],
    detections: Sequence[Box | None],
    size: tuple[int, int],
    options: PrepareOptions,
) -> list[Box | None]:
    """The boxes of a run by the rule, without the margin."""
    extents = np.array([extent(entry) for entry in points])
    whole = extents.astype(np.int64)
    if options.smooth:
        # The rule's other box, for a face over the left border, would be a jump: the face is cut instead.
        whole = hold_steady(extents)
        whole[:, 0] = np.maximum(whole[:, 0], 0)
    boxes: list[Box | None] = []
    for sides, entry, detection in zip(whole, points, detections, strict=True):
        box = box_of(sides, detection or box_around(entry), frame=size, bbox_shift=options.bbox_shift)
        boxes.append(box if box and _usable(box) else None)
    return boxes


def _one_size(boxes: Sequence[Box | None], size: tuple[int, int]) -> list[Box | None]:
    """Every box as large as the largest, around its own middle, moved inside the frame."""
    there = [box for box in boxes if box is not None]
    width = max((box.width for box in there), default=0)
    height = max((box.height for box in there), default=0)

    def grown(box: Box) -> Box:
        x = min(max(0, (box.x1 + box.x2 - width) // 2), size[0] - width)
        y = min(max(0, (box.y1 + box.y2 - height) // 2), size[1] - height)
        return Box(x, y, x + width, y + height)

    return [box and grown(box) for box in boxes]


def _quietest(differences: Sequence[float], cuts: Sequence[int], count: int) -> tuple[int, int]:
    """The frames at which the least moves, near both ends; a longer clip is taken where two are equal."""
    reach = int(count * _TRIM_SHARE)
    starts = [number for number in range(reach + 1) if number + 1 < count and number + 1 not in cuts]
    ends = [number for number in range(count - 1, count - 2 - reach, -1) if number > 0 and number not in cuts]
    return (
        min(starts, key=lambda number: differences[number + 1], default=0),
        min(ends, key=lambda number: differences[number], default=count - 1),
    )


def _jitter_of(boxes: Sequence[Box | None], runs: Sequence[tuple[int, int]]) -> float:
    """How much the centre of the boxes trembles, over stretches that all have one."""
    parts = []
    for start, end in runs:
        part = boxes[start:end]
        for a, b in _runs([box is not None for box in part], ()):
            parts.append(
                np.array([((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2) for box in part[a:b] if box])
            )
    return round(jitter(parts), 3)
