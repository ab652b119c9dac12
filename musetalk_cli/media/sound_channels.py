"""The channels that a sound codec takes, and sound of more of them as stereo."""

from __future__ import annotations

import numpy as np

from musetalk_cli.types import Samples

_TAKEN = {"aac": ("AAC", range(1, 9)), "libopus": ("Opus", (1, 2, 5, 6, 7, 8))}
"""By encoder: its name, and the counts for which ffmpeg guesses a layout that it takes; others take all."""


def coded_channels(options: str, channels: int) -> tuple[int, str]:
    """How many channels are written, and the codec's name where they are fewer than there are.

    Args:
        options: What ffmpeg is told of the sound codec.
        channels: Channels of the sound.
    """
    encoder = options.partition("-c:a ")[2].partition(" ")[0]
    name, taken = _TAKEN.get(encoder, ("", (channels,)))
    return (channels, "") if channels in taken else (2, name)


def as_stereo(samples: Samples) -> Samples:
    """Mean of the odd channels on the left, of the even ones on the right, as recorders pair them.

    Args:
        samples: float32 `[n, channels]`, of at least two channels.
    """
    sides = [samples[:, side::2].mean(axis=1, dtype=np.float64) for side in (0, 1)]
    return np.stack(sides, axis=1).astype(np.float32)
