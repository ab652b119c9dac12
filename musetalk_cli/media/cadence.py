"""The frame rate of a video, told from the time stamps of its frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.timeline import DEFAULT_FPS, FPS_RANGE

_WHOLE = (Fraction(25, 2), *map(Fraction, (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)))
_STANDARD = _WHOLE + tuple(Fraction(rate * 1000, 1001) for rate in (12, 15, 24, 30, 48, 60, 120))
_JITTER = Fraction(5, 1000)


@dataclass(frozen=True, slots=True)
class Cadence:
    """How frames follow each other.

    Attributes:
        rate: Frames per second: of the frames themselves where it is constant, else one that suits them.
        constant: True where every frame comes within a rounding error of its place at that rate.
        slowest: Frames per second in the longest interval.
        fastest: Frames per second in the shortest interval.
    """

    rate: Fraction
    constant: bool
    slowest: Fraction
    fastest: Fraction


def cadence(stamps: NDArray[np.int64], tick: Fraction, declared: Fraction | None) -> Cadence:
    """Find the rate of frames shown at the given times.

    One tick counts as rounding, and so does a tenth of an interval, up to 5 ms: resampling would give each
    such frame once anyway. The last stamp may lie anywhere.

    Args:
        stamps: int64 `[n]`, rising, in ticks.
        tick: Seconds per tick.
        declared: Frames per second that the container declares.
    """
    if len(stamps) < 2:
        rate = declared or DEFAULT_FPS
        return Cadence(rate, True, rate, rate)
    body = stamps[:-1] if len(stamps) > 3 else stamps
    mean = (len(body) - 1) / (int(body[-1] - body[0]) * tick)
    steps = np.diff(stamps)
    slowest, fastest = 1 / (int(steps.max()) * tick), 1 / (int(steps.min()) * tick)
    close = [rate for rate in _STANDARD if abs(rate / mean - 1) < Fraction(1, 200)]
    close.sort(key=lambda rate: abs(rate - mean))
    for rate in [
        *([declared] if declared else []),
        *close,
        mean.limit_denominator(1001),
        mean.limit_denominator(10**5),
    ]:
        if rate > 0 and _fits(body, tick, rate):
            return Cadence(rate, True, slowest, fastest)
    return Cadence(_rounded(_usual(steps, tick, mean)), False, slowest, fastest)


def _usual(steps: NDArray[np.int64], tick: Fraction, mean: Fraction) -> Fraction:
    """The rate at which most frames come, where most agree and pauses are few; else the mean."""
    middle = float(np.median(steps))
    agreed = np.abs(steps - middle) <= max(1.0, middle / 10)
    usual = 1 / (Fraction(float(steps[agreed].mean())) * tick) if agreed.mean() >= 0.5 else mean
    return usual if mean <= usual <= 2 * mean else mean


def _fits(stamps: NDArray[np.int64], tick: Fraction, rate: Fraction) -> bool:
    step = float(1 / (rate * tick))
    wanted = np.arange(len(stamps)) * step
    allowed = max(1.0, min(step / 10, float(_JITTER / tick)))
    return bool(np.abs(stamps - stamps[0] - wanted).max() <= allowed + 1e-6)


def _rounded(rate: Fraction) -> Fraction:
    """A rate that people use where one is near, else hundredths, and never an absurd one."""
    rate = min(max(rate, Fraction(FPS_RANGE[0])), Fraction(FPS_RANGE[1]))
    near = min(_STANDARD, key=lambda standard: abs(standard - rate))
    return near if abs(near / rate - 1) < Fraction(1, 100) else Fraction(round(rate * 100), 100)


def exact_rate(rounded: Fraction) -> Fraction:
    """The rate that ffmpeg rounded to two digits: 29.97 is 30000/1001."""
    if rounded <= 0:
        return DEFAULT_FPS
    film = Fraction(round(rounded * 1001 / 1000) * 1000, 1001)
    if rounded.denominator != 1 and abs(film - rounded) <= Fraction(5, 1000):
        return film
    return rounded
