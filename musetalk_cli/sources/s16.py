"""Raw 16-bit PCM: what it may be, and its bytes as samples however they were cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.sources.containers import recognise
from musetalk_cli.types import Samples

SAMPLE_RATES = (4_000, 384_000)
CHANNELS = (1, 8)
BYTES_PER_SAMPLE = 2
READ_BYTES = 1 << 16
DISCARD_BYTES = 1 << 22
"""The most that is thrown away at once: more than any pipe holds."""


def check_format(sample_rate: int, channels: int) -> None:
    """Refuse what no sound is recorded with.

    Raises:
        InputError: The rate is outside 4000..384000, or the channels outside 1..8.
    """
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise InputError(
            f"--input-rate {sample_rate} is outside {SAMPLE_RATES[0]}..{SAMPLE_RATES[1]}.",
            "Speech is usually 16000.",
        )
    if not CHANNELS[0] <= channels <= CHANNELS[1]:
        raise InputError(
            f"--input-channels {channels} is outside {CHANNELS[0]}..{CHANNELS[1]}.", "Speech is usually 1."
        )


class PcmDecoder:
    """Little-endian signed 16-bit PCM, interleaved; part of a sample frame waits for the rest of it.

    The first bytes wait too while they may begin a container, which would be heard as noise.

    Args:
        channels: Channels of the sound.

    Attributes:
        container: What the bytes are in place of PCM; empty as long as they are not. From then on nothing
            is decoded.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._width = BYTES_PER_SAMPLE * channels
        self._rest = b""
        self._judged = False
        self.container = ""

    def decode(self, data: bytes) -> Samples:
        """Take bytes, give float32 `[n, channels]`, full scale at 1.0."""
        data = self._rest + data
        if not self._judged:
            container = recognise(data)
            if container is None:
                self._rest = data
                return self._samples(b"")
            self.container, self._judged = container, True
        if self.container:
            return self._samples(b"")
        whole = len(data) - len(data) % self._width
        self._rest = data[whole:]
        return self._samples(data[:whole])

    @property
    def incomplete(self) -> int:
        """Bytes of the last sample of all channels, of which the rest has not come."""
        return len(self._rest)

    def flush(self) -> Samples:
        """The whole samples among the bytes that still wait: they become no container any more."""
        if self.container:
            return self._samples(b"")
        self._judged = True
        return self.decode(b"")

    def discard(self, read: Callable[[int], bytes | None]) -> int:
        """Throw away what can be read without waiting, up to 4 MiB, and what still waits for its rest.

        Args:
            read: Gives up to so many bytes; empty or None where there are none.

        Returns:
            Samples of each channel that were thrown away.
        """
        left, samples = DISCARD_BYTES, 0
        while left > 0 and (data := read(min(left, READ_BYTES))):
            left -= len(data)
            samples += len(self.decode(data))
        return samples + len(self.flush())

    def _samples(self, data: bytes) -> Samples:
        numbers = np.frombuffer(data, dtype="<i2").reshape(-1, self._channels)
        samples: Samples = numbers.astype(np.float32) / np.float32(32768)
        return samples
