"""Face tracking: who is who from frame to frame, and which of the faces will speak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.settings import CHOICES, check_choice

_REACH = 0.5
"""How far a face may move from one frame to the next, in widths of the face."""
_REACH_PER_FRAME = 0.04
"""How much further for each frame it was not seen: one width a second at 25 frames per second."""
_FARTHEST = 2.0
"""How far it may move however long it was not seen."""
_GROWTH = 1.6
_BRIEF_SHARE, _BRIEF_FRAMES = 0.2, 12
"""A track that is shorter than both, a share of the longest one and a number of frames, is a false alarm.
One that is shorter than this number of frames ends where it was not seen for as many."""


@dataclass(slots=True)
class _Track:
    """One person within a shot: the frames in which the face was seen."""

    frames: list[int] = field(default_factory=list)
    faces: list[FaceLandmarks] = field(default_factory=list)

    def add(self, frame: int, face: FaceLandmarks) -> None:
        self.frames.append(frame)
        self.faces.append(face)

    def goes_on(self, frame: int) -> bool:
        """True where a face of this frame may belong to it."""
        return len(self.frames) >= _BRIEF_FRAMES or frame - self.frames[-1] <= _BRIEF_FRAMES

    def distance(self, frame: int, face: FaceLandmarks) -> float:
        """How far a face is from where the track ended, in units of how far it may be; over 1 is too far."""
        middle, size = _place(self.faces[-1])
        other, other_size = _place(face)
        reach = min(_REACH + _REACH_PER_FRAME * (frame - self.frames[-1]), _FARTHEST)
        growth = max(size, other_size) / max(min(size, other_size), 1e-6)
        if growth > _GROWTH:
            return np.inf
        return float(np.hypot(*(other - middle)) / (reach * max(size, other_size)))


@dataclass(frozen=True, slots=True)
class Chosen:
    """The outcome of a choice.

    Attributes:
        faces: One entry per frame: the chosen person's face, or None.
        people: The most people that were seen in one shot, false alarms left out.
    """

    faces: list[FaceLandmarks | None]
    people: int


def choose(frames: Sequence[Sequence[FaceLandmarks]], cuts: Sequence[int], choice: str, width: int) -> Chosen:
    """Follow every face through the clip, and take the chosen one of each shot.

    Faces are joined to the nearest track that ended within reach, first to those that were seen in the frame
    before; what is far from all tracks starts a new one. So a face stays the same person while others come,
    go and pass, and while it is hidden for a while.

    Args:
        frames: The faces of every frame.
        cuts: Numbers of the frames that start a new shot.
        choice: `largest`, `left`, `right`, `center`, or a number counted from the left, from 1.
        width: Columns of a frame.

    Raises:
        InputError: The choice is none of these, or a number that no shot has so many people for.
    """
    check_choice(choice)
    chosen: list[FaceLandmarks | None] = [None] * len(frames)
    people = 0
    for start, end in shots(cuts, len(frames)):
        tracks = _people(_follow(frames, start, end))
        people = max(people, len(tracks))
        track = _pick(tracks, choice, width)
        if track is not None:
            for number, face in zip(track.frames, track.faces, strict=True):
                chosen[number] = face
    if choice.isdecimal() and people and int(choice) > people:
        raise InputError(
            f"--face {choice} is not there: {people} {'person was' if people == 1 else 'people were'} seen.",
            f"Use {CHOICES}.",
        )
    return Chosen(chosen, people)


def shots(cuts: Sequence[int], count: int) -> list[tuple[int, int]]:
    """First frame and one past the last of every shot; `cuts` are the frames that start a new one."""
    borders = [0, *(cut for cut in sorted(set(cuts)) if 0 < cut < count), count]
    return [(a, b) for a, b in pairwise(borders) if b > a]


def _follow(frames: Sequence[Sequence[FaceLandmarks]], start: int, end: int) -> list[_Track]:
    tracks: list[_Track] = []
    open_: list[_Track] = []
    for number in range(start, end):
        left = dict(enumerate(frames[number]))
        open_ = [track for track in open_ if track.goes_on(number)]
        # Somebody who comes back where another one just passed must not take that one's place.
        for near in (True, False):
            waiting = [track for track in open_ if (track.frames[-1] == number - 1) is near]
            _join(waiting, number, left)
        started = [_Track([number], [face]) for face in left.values()]
        tracks += started
        open_ += started
    return tracks


def _join(tracks: Sequence[_Track], number: int, left: dict[int, FaceLandmarks]) -> None:
    """Add each face to the track it is nearest to, and take it out of those that are left."""
    pairs = sorted(
        (track.distance(number, face), t, f) for t, track in enumerate(tracks) for f, face in left.items()
    )
    for distance, t, f in pairs:
        if distance <= 1 and f in left and tracks[t].frames[-1] < number:
            tracks[t].add(number, left.pop(f))


def _people(tracks: Sequence[_Track]) -> list[_Track]:
    """The tracks that are people; where no two were seen at once, they are one person who came back."""
    longest = max((len(track.frames) for track in tracks), default=0)
    brief = min(_BRIEF_SHARE * longest, _BRIEF_FRAMES)
    people = [track for track in tracks if len(track.frames) >= brief]
    numbers = [number for track in people for number in track.frames]
    if len(people) > 1 and len(set(numbers)) == len(numbers):
        faces = {n: face for track in people for n, face in zip(track.frames, track.faces, strict=True)}
        return [_Track(sorted(faces), [faces[number] for number in sorted(faces)])]
    return people


def _pick(tracks: Sequence[_Track], choice: str, width: int) -> _Track | None:
    """The chosen track of a shot; None where there is none."""
    if not tracks:
        return None
    across = [float(np.median([_place(face)[0][0] for face in track.faces])) for track in tracks]
    order = sorted(range(len(tracks)), key=across.__getitem__)
    if choice == "left":
        return tracks[order[0]]
    if choice == "right":
        return tracks[order[-1]]
    if choice == "center":
        return tracks[min(order, key=lambda index: abs(across[index] - width / 2))]
    if choice == "largest":
        sizes = [float(np.median([_place(face)[1] for face in track.faces])) for track in tracks]
        return tracks[max(order, key=sizes.__getitem__)]
    return tracks[order[int(choice) - 1]] if int(choice) <= len(tracks) else None


def _place(face: FaceLandmarks) -> tuple[NDArray[np.float64], float]:
    """Middle of a face's points, and its size: the mean of width and height."""
    low, high = face.points.min(axis=0), face.points.max(axis=0)
    middle: NDArray[np.float64] = (low + high) / 2
    return middle, float((high - low).mean())
