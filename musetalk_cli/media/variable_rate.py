"""A resampler whose ratio may change from block to block, for two clocks that do not agree.

soxr has such a stream too, but it holds 240 samples back (15 ms at 16 kHz), and does not say so.
"""

from __future__ import annotations

import math

import numpy as np

from musetalk_cli.types import Samples

CROSSINGS = 12
"""Zero crossings of the sinc on each side of a sample."""
BETA = 7.0
"""Of the Kaiser window: stop band at -70 dB."""
PHASES = 4096
"""Places between two samples at which the kernel is tabulated; the nearest one is off by -75 dB."""


class VariableResampler:
    """Windowed-sinc interpolation of a stream at a step that each block brings along.

    Args:
        ratio: Samples that come in for each that goes out, as it will be but for small corrections.
        channels: Channels of the sound.

    Attributes:
        look_ahead: Samples that must come after one before it goes out.
    """

    def __init__(self, ratio: float, channels: int) -> None:
        cutoff = min(1.0, 1.0 / ratio)
        self.look_ahead = math.ceil(CROSSINGS / cutoff)
        self._kernels = _kernels(cutoff, self.look_ahead)
        self._channels = channels
        self.clear()

    def clear(self) -> None:
        """Forget what came: silence lies before what comes next."""
        self._sound: Samples = np.zeros((self.look_ahead, self._channels), np.float32)
        self._next = float(self.look_ahead)

    def held_back(self, step: float) -> float:
        """Samples that go out before the first of what comes next does, at a step."""
        return (len(self._sound) - self._next) / step

    def resample(self, samples: Samples, step: float) -> Samples:
        """Take float32 `[n, channels]`, give the float32 `[m, channels]` that are final.

        Args:
            samples: What comes next.
            step: Samples that come in for each that goes out.
        """
        self._sound = np.concatenate([self._sound, samples])
        count = math.ceil((len(self._sound) - self.look_ahead - self._next) / step)
        if count <= 0:
            return np.zeros((0, self._channels), np.float32)
        places = self._next + step * np.arange(count)
        before = places.astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(self._sound, 2 * self.look_ahead, axis=0)
        near = windows[before - self.look_ahead + 1]
        kernels = self._kernels[np.rint((places - before) * PHASES).astype(np.int64)]
        out: Samples = np.matmul(near, kernels[:, :, None])[:, :, 0]
        self._next += step * count
        done = int(self._next) - self.look_ahead
        self._sound, self._next = self._sound[done:], self._next - done
        return out

    def flush(self, step: float) -> Samples:
        """What is held back, as if silence came next."""
        return self.resample(np.zeros((2 * self.look_ahead, self._channels), np.float32), step)


def _kernels(cutoff: float, half: int) -> Samples:
    """Kaiser-windowed sincs `[PHASES + 1, 2 * half]`, each of unit sum, so that a constant stays one."""
    fractions = np.arange(PHASES + 1)[:, None] / PHASES
    distance = np.arange(1 - half, half + 1)[None, :] - fractions
    window = np.i0(BETA * np.sqrt(np.maximum(0.0, 1 - (distance / half) ** 2)))
    kernels = np.sinc(cutoff * distance) * window
    kernels /= kernels.sum(axis=1, keepdims=True)
    return np.asarray(kernels, np.float32)
