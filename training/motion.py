"""How heads move: poses to train on, the idle loop of an avatar, and motion that is only used to judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.face import Pose

Track = NDArray[np.float64]
"""A value for each frame."""

_RANGES = {"x": 6.0, "y": 4.0, "roll": 3.0, "scale": 0.02, "yaw": 0.32, "pitch": 0.25}
"""How far an idle head goes, in the units of `Pose`."""
_BLINK = (0.45, 1.0, 0.7, 0.3)
"""How far the eyes are closed in the frames of a blink."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A person's pose and eyes in a frame."""

    pose: Pose
    blink: float = 0.0
    gaze: float = 0.0


def random_moment(rng: np.random.Generator) -> Moment:
    """Any moment an idle person may have."""
    parts = {name: float(rng.uniform(-1.15, 1.15) * far) for name, far in _RANGES.items()}
    pose = Pose(**(parts | {"scale": 1 + parts["scale"], "breath": float(rng.uniform(-1, 1))}))
    blink = float(rng.choice(_BLINK)) if rng.random() < 0.1 else 0.0
    return Moment(pose, blink, float(rng.uniform(-0.5, 0.5)))


def idle(frames: int, seed: int) -> list[Moment]:
    """An idle loop, to be played forward and backward: it rests at both ends.

    Args:
        frames: How many at 25 a second.
        seed: Another seed is another loop.
    """
    rng = np.random.default_rng(seed)
    phase = np.pi * np.arange(frames) / (frames - 1)
    tracks = {name: far * _wave(rng, phase, (1, 2, 3, 4)) for name, far in _RANGES.items()}
    gaze = 0.3 * _wave(rng, phase, (1, 3, 5))
    breath = np.cos(2 * phase)
    blink = np.zeros(frames)
    for start in range(int(rng.integers(12, 30)), frames - 8, 68):
        blink[start : start + len(_BLINK)] = _BLINK
    return _moments(tracks, breath, blink, gaze)


def _wave(rng: np.random.Generator, phase: Track, orders: tuple[int, ...]) -> Track:
    """Cosines of multiples of the phase with random signs, within -1..1; higher ones weigh less."""
    weights = np.array([rng.uniform(0.5, 1.0) / order for order in orders]) * rng.choice([-1, 1], len(orders))
    track: Track = weights / np.abs(weights).sum() @ np.cos(np.outer(orders, phase))
    return track


def judged(frames: int, seed: int) -> list[Moment]:
    """Motion that no loop and no training set holds: slow waves of unrelated periods."""
    rng = np.random.default_rng((seed, 5))
    time = np.arange(frames) / 25
    tracks = {}
    for name, far in _RANGES.items():
        rates, shifts = rng.uniform(0.8, 2.4, 3), rng.uniform(0, 2 * np.pi, 3)
        tracks[name] = (
            far / 3 * sum(np.sin(rate * time + shift) for rate, shift in zip(rates, shifts, strict=True))
        )
    blink = np.zeros(frames)
    for start in range(int(rng.integers(20, 60)), frames - 8, int(rng.integers(60, 90))):
        blink[start : start + len(_BLINK)] = _BLINK
    return _moments(tracks, np.sin(1.4 * time), blink, 0.2 * np.sin(0.7 * time))


def _moments(tracks: dict[str, Track], breath: Track, blink: Track, gaze: Track) -> list[Moment]:
    moments = []
    for number in range(len(breath)):
        parts = {name: float(track[number]) for name, track in tracks.items()}
        pose = Pose(**(parts | {"scale": 1 + parts["scale"], "breath": float(breath[number])}))
        moments.append(Moment(pose, float(blink[number]), float(gaze[number])))
    return moments
