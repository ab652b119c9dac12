"""Faces over time: cuts, gaps, smoothing in both directions, and how much a box trembles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.types import Image

_THUMBNAIL = (64, 36)
_CUT_LEVELS = 10.0
_CUT_TIMES = 4.0
_CUT_WINDOW = 6
_OUTLIER = 3.0
_BESIDE = 2
_SMALLEST_NOISE = 0.25
_HOLD = 0.5


def thumbnail(frame: Image) -> Image:
    """A frame in 64 x 36 grey pixels, whatever its shape; enough to tell two pictures apart."""
    small = cv2.resize(frame, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def difference(one: Image, other: Image) -> float:
    """Mean distance of two thumbnails in levels, 0..255, to three digits."""
    return round(float(np.abs(one.astype(np.int16) - other).mean()), 3)


def find_cuts(differences: Sequence[float]) -> list[int]:
    """The frames that start a new shot.

    A cut differs from the frame before it by 10 levels, and by 4 times as much as the frames around it do:
    fast motion and a moving camera change many frames in a row. A flash, or a jolt of the camera that is over
    within a few frames, cannot be told from cuts and counts as such.

    Args:
        differences: Entry `i` is the difference of frame `i` from the one before it; entry 0 is not used.
    """
    values = np.asarray(differences, np.float64)
    cuts = []
    for index in range(1, len(values)):
        around = np.concatenate(
            [values[max(1, index - _CUT_WINDOW) : index], values[index + 1 : index + 1 + _CUT_WINDOW]]
        )
        usual = float(np.median(around)) if len(around) else 0.0
        if values[index] >= _CUT_LEVELS and values[index] >= _CUT_TIMES * usual:
            cuts.append(index)
    return cuts


def gaps(seen: Sequence[bool], start: int, end: int) -> list[tuple[int, int]]:
    """First frame and one past the last of every gap between seen frames of a shot; none at its ends."""
    numbers = [number for number in range(start, end) if seen[number]]
    return [(a + 1, b) for a, b in pairwise(numbers) if b > a + 1]


def interpolate(points: NDArray[np.float64], gap: tuple[int, int]) -> None:
    """Fill a gap in place, on straight lines between the frames at its ends.

    Args:
        points: `[n, ...]`, one entry per frame.
        gap: First missing frame and one past the last.
    """
    before, after = gap[0] - 1, gap[1]
    for number in range(*gap):
        share = (number - before) / (after - before)
        points[number] = (1 - share) * points[before] + share * points[after]


def smooth(points: NDArray[np.float64], cutoff: float) -> NDArray[np.float64]:
    """Kalman smoother: over the whole of a motion, in both directions, so that nothing lags.

    That of Rauch, Tung and Striebel, for positions whose velocity is a random walk. It is a cubic
    smoothing spline, a low-pass that halves the amplitude at `cutoff`, where the ratio of the walk's variance
    to that of the measurements is `(2 pi cutoff)^4`. A frame that stands out from the five around it counts
    less: one or two wrong frames in a row do, a quick motion does not.

    Args:
        points: `[n, ...]`, one entry per frame.
        cutoff: Cycles per frame, 0..0.5.

    Returns:
        As `points`.
    """
    if len(points) < 3:
        return np.array(points)
    flat = points.reshape(len(points), -1)
    result = _smoothed(flat, _variances(flat), (2 * np.pi * cutoff) ** 4)
    return np.asarray(result.reshape(points.shape), np.float64)


def _variances(measured: NDArray[np.float64]) -> NDArray[np.float64]:
    """Outlier weights: how much less to trust each frame, 1 where it is near the median of those around it.

    Far is three times what the frames around it usually do, what all frames usually do, or a quarter of a
    pixel, whichever is most (the filter of Hampel).
    """
    distances, spreads = np.zeros(len(measured)), np.zeros(len(measured))
    for index in range(len(measured)):
        around = measured[max(0, index - _BESIDE) : index + _BESIDE + 1]
        middle = np.median(around, axis=0)
        spreads[index] = _size(np.median(np.abs(around - middle), axis=0))
        distances[index] = _size(measured[index] - middle)
    usual = np.maximum(spreads, max(float(np.median(distances)), _SMALLEST_NOISE))
    return np.asarray(np.maximum(1.0, distances / (_OUTLIER * usual)) ** 2, np.float64)


def _size(values: NDArray[np.float64]) -> float:
    """The root mean square."""
    return float(np.sqrt(np.square(values).mean()))


def _smoothed(
    measured: NDArray[np.float64], variance: NDArray[np.float64], ratio: float
) -> NDArray[np.float64]:
    """One pass forward and one back; every column has the same gains, so they are computed once."""
    count, columns = measured.shape
    step = np.array([[1.0, 1.0], [0.0, 1.0]])
    noise = ratio * np.array([[1 / 3, 1 / 2], [1 / 2, 1.0]])
    states = np.zeros((count, 2, columns))
    spreads, predicted_spreads = np.zeros((count, 2, 2)), np.zeros((count, 2, 2))
    state = np.vstack([measured[0], np.zeros(columns)])
    spread = np.diag([1e6, 1e6])
    for index in range(count):
        if index:
            state = step @ state
            spread = step @ spread @ step.T + noise
        predicted_spreads[index] = spread
        gain = spread[:, 0] / (spread[0, 0] + variance[index])
        state = state + gain[:, None] * (measured[index] - state[0])
        # Joseph's form keeps the spread positive however small the noise is.
        rest = np.eye(2) - np.outer(gain, [1.0, 0.0])
        spread = rest @ spread @ rest.T + variance[index] * np.outer(gain, gain)
        states[index], spreads[index] = state, spread
    for index in range(count - 2, -1, -1):
        back = spreads[index] @ step.T @ np.linalg.inv(predicted_spreads[index + 1])
        states[index] += back @ (states[index + 1] - step @ states[index])
    result: NDArray[np.float64] = states[:, 0]
    return result


def hold_steady(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounding with hysteresis: whole numbers that follow values without flickering.

    A number stays while the value is within half a pixel of what truncates to it; then it is the value,
    truncated (towards zero, as `face_box` does). A value that rests on the border between two numbers gives
    one of them, not both in turn.

    Args:
        values: `[n, k]`, each column on its own.

    Returns:
        int64 `[n, k]`.
    """
    whole = values.astype(np.int64)
    low, high = np.trunc(values - _HOLD), np.trunc(values + _HOLD)
    for index in range(1, len(whole)):
        before = whole[index - 1]
        near = (low[index] <= before) & (before <= high[index])
        whole[index] = np.where(near, before, whole[index])
    return whole


def jitter(runs: Sequence[NDArray[np.float64]]) -> float:
    """How much positions tremble, in pixels: the standard deviation of the noise on each axis.

    Told by second differences, in which steady motion cancels: of white noise they have `sqrt(6)` times its
    standard deviation.

    Args:
        runs: Positions `[n, 2]` of consecutive frames; runs shorter than three frames do not count.
    """
    parts = [np.diff(run, 2, axis=0) for run in runs if len(run) >= 3]
    if not parts:
        return 0.0
    return float(np.sqrt(np.square(np.concatenate(parts)).mean() / 6))
