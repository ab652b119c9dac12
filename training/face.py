"""A parametric face: where its parts are for a pose and the five mouth values.

Head coordinates are pixels with the origin between the eyes, x to the right and y down, before the pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.drawing import Points, curve, mirrored
from training.people import Person

WIDTH, HEIGHT = 512, 640
MOUTH_HEIGHT = 88.0
"""Of the middle of the closed mouth below the eyes."""
OPENING_HEIGHT = 42.0
"""Of a mouth that is open by 1."""
JAW_DROP = 6.0
"""Of the chin, where the mouth is open by 1."""
HOME = np.array([256.0, 292.0])
_NECK = np.array([0.0, 160.0])
_PARALLAX = np.array([20.0, 14.0])


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head is and looks.

    Attributes:
        x, y: Shift in pixels.
        roll: Degrees, clockwise.
        scale: 1 at home.
        yaw, pitch: -1..1, to the right and down.
        breath: -1..1, the shoulders up.
    """

    x: float = 0.0
    y: float = 0.0
    roll: float = 0.0
    scale: float = 1.0
    yaw: float = 0.0
    pitch: float = 0.0
    breath: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A person in a pose: from head coordinates to pixels of the frame."""

    person: Person
    pose: Pose

    def at(self, points: ArrayLike, depth: float = 0.0) -> Points:
        """Pixels of points `[n, 2]`; those of more `depth` move further when the head turns."""
        pose = self.pose
        turned = np.asarray(points, float) + _PARALLAX * (pose.yaw, pose.pitch) * depth - _NECK
        angle = np.deg2rad(pose.roll)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        placed: Points = turned @ turn.T * pose.scale + _NECK + HOME + (pose.x, pose.y)
        return placed

    def outline(self, opening: float) -> Points:
        """The face from the temples over the chin, closed over the skull, in head coordinates."""
        width, jaw, drop = self.person.width, self.person.jaw, JAW_DROP * opening
        return curve(
            mirrored(
                [
                    (0, -132),
                    (0.6 * width, -122),
                    (0.95 * width, -76),
                    (1.0 * width, -18),
                    (0.97 * width, 34 + 0.1 * drop),
                    (0.86 * width * jaw, 80 + 0.4 * drop),
                    (0.6 * width * jaw, 117 + 0.8 * drop),
                    (0.27 * width * jaw, 137 + drop),
                    (0, 141 + drop),
                ]
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class Mouth:
    """The lips' edges, in head coordinates, from left to right.

    Attributes:
        top, bottom: Outer edges.
        upper, lower: Inner edges; equal where the mouth is closed.
        half_width: Of the outer edges.
        height: Of the opening in the middle.
    """

    top: Points
    upper: Points
    lower: Points
    bottom: Points
    half_width: float
    height: float

    @classmethod
    def of(cls, person: Person, values: ArrayLike) -> Mouth:
        """The mouth of a person for five values in 0..1."""
        opening, width, rounding, _, _ = np.clip(np.asarray(values, float), 0, 1)
        half = person.mouth * (0.78 + 0.44 * width) * (1 - 0.44 * rounding)
        height = OPENING_HEIGHT * opening
        u = np.linspace(-1, 1, 49)
        bulge = (1 - np.abs(u) ** 2.2) ** 0.65
        bow = 1 - 0.3 * np.exp(-((u / 0.16) ** 2)) + 0.1 * np.exp(-(((np.abs(u) - 0.3) / 0.16) ** 2))
        corners = MOUTH_HEIGHT - 5 * (width - 0.45) * (1 - rounding) * u**2
        thick = [value * (1 + 0.35 * rounding) * (1 - 0.15 * opening) for value in person.lips]
        upper, lower = corners - 0.25 * height * bulge, corners + 0.75 * height * bulge
        rows = (upper - thick[0] * bulge * bow, upper, lower, lower + thick[1] * bulge)
        reach = (half, 0.9 * half, 0.9 * half, half)
        edges = [np.stack([wide * u, row], 1) for wide, row in zip(reach, rows, strict=True)]
        return cls(edges[0], edges[1], edges[2], edges[3], half_width=float(half), height=float(height))


def landmarks(person: Person, pose: Pose, values: ArrayLike) -> NDArray[np.float64]:
    """The 68 points of the face in pixels of the frame, in the usual order: `[68, 2]`."""
    head, mouth = Head(person, pose), Mouth.of(person, values)
    outline = head.outline(float(np.clip(np.asarray(values, float)[0], 0, 1)))
    lower = outline[outline[:, 1] > -20]
    lower = lower[np.argsort(np.arctan2(lower[:, 1] + 20, -lower[:, 0]))]
    jaw = lower[np.linspace(0, len(lower) - 1, 17).round().astype(int)]
    brows = [
        (sign * x, y)
        for sign in (-1, 1)
        for x, y in _in_order([(62, -34), (51, -42), (40, -44), (29, -42), (18, -37)], sign)
    ]
    nose = [(0, 2), (0, 14), (0, 27), (0, 42), (-13, 52), (-7, 55), (0, 57), (7, 55), (13, 52)]
    eyes = [
        (sign * 40 + x, y)
        for sign in (-1, 1)
        for x, y in ((-17, 0), (-8, -9), (8, -9), (17, 0), (8, 8), (-8, 8))
    ]
    lips = [
        *mouth.top[[0, 8, 16, 24, 32, 40, 48]],
        *mouth.bottom[[40, 32, 24, 16, 8]],
        *mouth.upper[[2, 12, 24, 36, 46]],
        *mouth.lower[[36, 24, 12]],
    ]
    parts = ((jaw, 0.0), (brows, 1.0), (nose, 1.1), (eyes, 1.0), (lips, 1.0))
    return np.concatenate([head.at(points, depth) for points, depth in parts])


def _in_order(points: list[tuple[int, int]], sign: int) -> list[tuple[int, int]]:
    return points if sign < 0 else points[::-1]


def mouth_centre(person: Person, pose: Pose) -> NDArray[np.float64]:
    """Where the middle of the closed mouth is, in pixels of the frame: `[2]`."""
    place: NDArray[np.float64] = Head(person, pose).at([(0.0, MOUTH_HEIGHT)], 1.0)[0]
    return place
