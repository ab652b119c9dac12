"""What is read off mouths, pictures and sounds when a bundle is judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training import sounds, visemes
from training.picturing import MOUTH

LAGS = 6
"""Frames by which the generated mouth is shifted in search of a better fit."""
QUIET_MARGIN = 5
"""Frames that a silence must go on before and after a frame of it that is judged."""


def correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Pearson's, -1..1."""
    return float(np.corrcoef(one, other)[0, 1])


def mean(values: NDArray[np.floating]) -> float | None:
    """Their mean, or None of none."""
    return float(values.mean()) if len(values) else None


def log_energy(samples: NDArray[np.float32], frames: int) -> NDArray[np.float64]:
    """Log of the RMS of 80 ms around the middle of each frame."""
    power = np.convolve(samples**2, np.ones(1280) / 1280, "same")[320::640][:frames]
    level: NDArray[np.float64] = np.log(np.sqrt(power) + 1e-3)
    return level


def best_lag(found: NDArray[np.floating], truth: NDArray[np.floating]) -> int:
    """Frames by which `found` must be taken earlier to fit the truth best: more than 0 where it is late."""
    inner = slice(LAGS, -LAGS)
    return max(range(-LAGS, LAGS + 1), key=lambda lag: correlation(np.roll(found, -lag)[inner], truth[inner]))


def mouth_psnr(images: NDArray[np.uint8], truth: NDArray[np.uint8], centres: NDArray[np.float32]) -> float:
    """Of the mouths' surroundings, dB."""
    errors = []
    for one, other, (x, y) in zip(images, truth, centres.astype(int), strict=True):
        part = (slice(y - MOUTH[1], y + MOUTH[1]), slice(x - MOUTH[0], x + MOUTH[0]))
        errors.append(((one[part].astype(float) - other[part]) ** 2).mean())
    return float(10 * np.log10(255**2 / np.mean(errors)))


def quiet_frames(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Frames inside silences."""
    still = (np.abs(values - visemes.REST) < 0.01).all(1)
    window = np.ones(2 * QUIET_MARGIN + 1)
    return np.flatnonzero(np.convolve(still, window, "same") == len(window))


def closing_frames(closures: NDArray[np.float32], frames: int) -> NDArray[np.int64]:
    """Frames whose middle lies in a closure of the lips."""
    middles = (np.arange(frames) + 0.5) / sounds.FRAME_RATE
    return np.flatnonzero([bool(((closures[:, 0] <= t) & (t <= closures[:, 1])).any()) for t in middles])
