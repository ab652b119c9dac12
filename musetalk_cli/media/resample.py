"""Mono sound at another rate, resampled as a stream; by default what the audio encoder hears, at 16 kHz."""

from __future__ import annotations

import numpy as np
import soxr

from musetalk_cli.media.mixdown import Mixdown
from musetalk_cli.timeline import SAMPLE_RATE, ceil_div
from musetalk_cli.types import Samples


class StreamResampler:
    """`Mixdown`, then soxr HQ to 16 kHz; the result does not depend on how the sound was cut.

    Args:
        sample_rate: Samples per second of what comes in.
        to: Samples per second of what goes out.
    """

    def __init__(self, sample_rate: int, to: int = SAMPLE_RATE) -> None:
        self._rate = sample_rate
        self._to = to
        self._stream = soxr.ResampleStream(sample_rate, to, 1, dtype="float32", quality="HQ")
        self._mixdown: Mixdown | None = None
        self._taken = 0
        self._given = 0

    @property
    def cancelled_at(self) -> float | None:
        """Second at which the channels first cancelled each other; None while they did not."""
        return None if self._mixdown is None else self._mixdown.cancelled_at

    def resample(self, samples: Samples) -> Samples:
        """Take float32 `[n, channels]`, give the float32 `[m]` that are final."""
        if self._mixdown is None:
            self._mixdown = Mixdown(self._rate, samples.shape[1])
        self._taken += len(samples)
        mono = self._mixdown.mix(samples)
        if self._rate == self._to:
            return mono
        out: Samples = self._stream.resample_chunk(mono)
        self._given += len(out)
        return out

    def flush(self) -> Samples:
        """The rest, zero-padded to `ceil(samples * to / sample_rate)` as librosa does."""
        mono = np.zeros(0, np.float32) if self._mixdown is None else self._mixdown.flush()
        if self._rate == self._to:
            return mono
        rest: Samples = self._stream.resample_chunk(mono, last=True)
        missing = ceil_div(self._taken * self._to, self._rate) - self._given
        return np.pad(rest, (0, max(0, missing - len(rest))))[:missing]
