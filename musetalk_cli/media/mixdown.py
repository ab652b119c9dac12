"""Downmix to mono: the mean of the channels, unless they cancel each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.types import Samples

INTERVALS_PER_SECOND = 50
"""Decisions per second, on a grid of the sound's own samples, so that no cut of it changes one."""
CANCELLED, RESTORED = 0.25, 0.5
"""Power of the mean against that of unrelated channels (1; of equal ones 2, of opposite ones 0) below which
it is given up, and above which it is taken again."""
_KEPT = 0.9
"""What an interval's weight in the decision is one interval later: 0.2 s of memory."""
_LOUDER = 2.0
"""How much more power a channel must have to be heard in place of the one that is."""
_SILENT = 1e-8
"""Mean square below which a interval says nothing: -80 dB of full scale."""


class Mixdown:
    """Mean of the channels; the louder channel where the mean loses more than 6 dB by cancellation.

    Args:
        sample_rate: Samples per second.
        channels: Channels of the sound.

    Attributes:
        cancelled_at: Second at which the channels first cancelled each other; None while they did not.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._rate, self._channels = sample_rate, channels
        self._held = np.zeros((0, channels), np.float32)
        self._given = 0
        self._interval = 0
        self._powers = np.zeros(channels)
        self._mean_power = 0.0
        self._channel: int | None = None
        self.cancelled_at: float | None = None

    def mix(self, samples: Samples) -> Samples:
        """Take float32 `[n, channels]`, give the float32 `[m]` of every interval that is complete."""
        if self._channels == 1:
            return samples[:, 0]
        self._held = np.concatenate([self._held, samples])
        mixed, begin = [np.zeros(0, np.float32)], 0
        while (end := self._interval_end() - self._given) <= len(self._held):
            mixed.append(self._mixed(self._held[begin:end]))
            self._interval += 1
            begin = end
        self._held = self._held[begin:].copy()
        self._given += begin
        return np.concatenate(mixed)

    def flush(self) -> Samples:
        """The last interval, which is not complete."""
        last, self._held = self._held, self._held[:0]
        return self._mixed(last) if len(last) else np.zeros(0, np.float32)

    def _interval_end(self) -> int:
        return (self._interval + 1) * self._rate // INTERVALS_PER_SECOND

    def _mixed(self, interval: Samples) -> Samples:
        before, known = self._channel, self._mean_power > 0 or self._powers.any()
        mean: Samples = interval.mean(axis=1, dtype=np.float32)
        self._decide(interval, mean)
        if self._channel is None and (before is None or not known):
            return mean
        after = mean if self._channel is None else interval[:, self._channel]
        if self._channel == before or not known:
            return after
        fade: NDArray[np.float32] = np.linspace(0, 1, len(interval), endpoint=False, dtype=np.float32)
        return (mean if before is None else interval[:, before]) * (1 - fade) + after * fade

    def _decide(self, interval: Samples, mean: Samples) -> None:
        """Choose the channel to be heard, or None for the mean, from the whole intervals so far."""
        if len(interval) < self._rate // INTERVALS_PER_SECOND:
            return
        powers = np.square(interval, dtype=np.float64).mean(axis=0)
        if powers.max() < _SILENT:
            return
        self._powers = self._powers * _KEPT + powers
        self._mean_power = self._mean_power * _KEPT + float(np.square(mean, dtype=np.float64).mean())
        left = self._mean_power / (self._powers.sum() / self._channels**2)
        if left >= (RESTORED if self._channel is not None else CANCELLED):
            self._channel = None
            return
        loudest = int(self._powers.argmax())
        if self._channel is None or self._powers[loudest] > _LOUDER * self._powers[self._channel]:
            self._channel = loudest
        if self.cancelled_at is None:
            self.cancelled_at = self._interval / INTERVALS_PER_SECOND
