"""Faces by DWPose: the whole frame first, then the people that were found, several frames at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from musetalk_cli.errors import MuseTalkError
from musetalk_cli.face.boxes import box_around
from musetalk_cli.face.dwpose import Dwpose, face_of
from musetalk_cli.face.haar import HaarFinder
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.types import Box, Image

log = logging.getLogger(__name__)

CONFIDENT = 0.3
"""A face is there where the mean confidence of its points reaches this."""

_MOST_PEOPLE = 6
_SAME = 0.4
"""Two faces whose middles are closer than this share of their size are one."""
_ABOVE, _BELOW, _ASIDE = 1.0, 5.0, 2.0
"""How far a person reaches from the face's box, in its sides."""


class DwposeFinder:
    """Finds the faces of people with DWPose.

    Where nobody is followed yet, the frame is given to the network as a whole, or, where OpenCV's cascade
    sees several faces in it, each of their surroundings. Then everybody who was found is looked for around
    where the face last was, and whoever else the cascade sees in the first of the frames, so that nobody who
    comes in or comes back is missed while others are followed; frames in which nobody is found that way are
    looked at as a whole once more.

    Args:
        network: The network.

    Attributes:
        name: What `avatar.json` records.
        batch: Frames that are passed at once.
        sees_mouth: True.
        cutoff_hz: How fast a motion may be that smoothing keeps: nods are kept, trembling is not.
    """

    name = "dwpose"
    batch = 8
    sees_mouth = True
    cutoff_hz = 3.0

    def __init__(self, network: Dwpose) -> None:
        self._network = network
        self._cascade: HaarFinder | None = None
        try:
            self._cascade = HaarFinder()
        except MuseTalkError as error:
            log.warning("Only one person is looked for: %s", error.message)

    def find(self, frames: Sequence[Image], previous: Sequence[FaceLandmarks]) -> list[list[FaceLandmarks]]:
        """The faces of each frame.

        Args:
            frames: uint8 `[height, width, 3]` each, BGR, of one size.
            previous: The faces of the frame before the first one.
        """
        size = (frames[0].shape[1], frames[0].shape[0])
        people = self._propose(frames[0], previous, size)
        found = self._look(frames, [people] * len(frames)) if people else [[] for _ in frames]
        lost = [number for number, faces in enumerate(found) if not faces]
        for number, faces in zip(lost, self._look_everywhere([frames[n] for n in lost], size), strict=True):
            found[number] = faces
        return found

    def _look_everywhere(self, frames: Sequence[Image], size: tuple[int, int]) -> list[list[FaceLandmarks]]:
        """The faces in whole frames: what is found there is looked at once more from near."""
        whole = self._look(frames, [[Box(0, 0, *size)]] * len(frames))
        near = self._look(frames, [[_surroundings(face, size) for face in faces] for faces in whole])
        return [close or far for close, far in zip(near, whole, strict=True)]

    def _propose(self, frame: Image, previous: Sequence[FaceLandmarks], size: tuple[int, int]) -> list[Box]:
        """Where people may be in a frame, those of the frame before it first; nowhere where none is known."""
        seen = self._cascade.find([frame], [])[0] if self._cascade else []
        if not previous and len(seen) < 2:
            return []
        others = [face for face in seen if not any(_same(face, other) for other in previous)]
        return [_surroundings(face, size) for face in [*previous, *others][:_MOST_PEOPLE]]

    def _look(self, frames: Sequence[Image], people: Sequence[Sequence[Box]]) -> list[list[FaceLandmarks]]:
        """The faces of the given people in each frame, each once."""
        pairs = [(number, box) for number, boxes in enumerate(people) for box in boxes]
        found: list[list[FaceLandmarks]] = [[] for _ in frames]
        if not pairs:
            return found
        points, scores = self._network([frames[number] for number, _ in pairs], [box for _, box in pairs])
        for (number, _), person, score in zip(pairs, points, scores, strict=True):
            face = _face(*face_of(person, score), frames[number])
            if face is not None and not any(_same(face, other) for other in found[number]):
                found[number].append(face)
        return found


def _face(points: np.ndarray, scores: np.ndarray, frame: Image) -> FaceLandmarks | None:
    """A face where the network is sure of one and it lies in the frame."""
    if scores.mean() < CONFIDENT:
        return None
    box = box_around(points).clamp(frame.shape[1], frame.shape[0])
    if box.empty:
        return None
    return FaceLandmarks(np.round(points, 2), box, np.round(scores, 3).astype(np.float32))


def _surroundings(face: FaceLandmarks, size: tuple[int, int]) -> Box:
    """The part of the frame that a person with this face fills."""
    low, high = face.points.min(axis=0), face.points.max(axis=0)
    width, height = high - low
    box = Box(
        int(low[0] - _ASIDE * width),
        int(low[1] - _ABOVE * height),
        int(high[0] + _ASIDE * width),
        int(high[1] + _BELOW * height),
    ).clamp(*size)
    return Box(0, 0, *size) if box.empty else box


def _same(one: FaceLandmarks, other: FaceLandmarks) -> bool:
    distance = np.linalg.norm(one.points.mean(axis=0) - other.points.mean(axis=0))
    sizes = [float(np.ptp(face.points, axis=0).mean()) for face in (one, other)]
    return bool(distance < _SAME * max(sizes))
