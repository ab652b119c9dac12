"""Raw 16-bit PCM from a file descriptor, read as it comes."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.timing import Clock
from musetalk_cli.types import AudioChunk

READ_BYTES = 1 << 16
POLL_S = 0.1


class PcmSource:
    """Little-endian signed 16-bit mono PCM from a pipe, a socket or a file.

    A short read is not an end, and half a sample waits for its other half; only the stream's end ends it.

    Args:
        descriptor: Open file descriptor; it stays the caller's.
        sample_rate: Samples per second.
        clock: Where time comes from.
        name: What to call it in messages.

    Raises:
        InputError: The rate is outside 4000..384000.
    """

    live = True
    channels = 1

    def __init__(self, descriptor: int, sample_rate: int, clock: Clock, name: str = "standard input") -> None:
        if not 4_000 <= sample_rate <= 384_000:
            raise InputError(
                f"--input-rate {sample_rate} is outside 4000..384000.", "Speech is usually 16000."
            )
        self._descriptor = descriptor
        self._clock = clock
        self._name = name
        self._closed = threading.Event()
        self.sample_rate = sample_rate

    def __iter__(self) -> Iterator[AudioChunk]:
        """Yield what each read brings.

        Raises:
            InputError: The stream ended without one sample, or cannot be read.
        """
        rest = b""
        empty = True
        while (data := self._read()) is not None:
            data = rest + data
            whole = len(data) - len(data) % 2
            rest = data[whole:]
            if whole:
                empty = False
                samples = np.frombuffer(data[:whole], dtype="<i2").astype(np.float32) / np.float32(32768)
                yield AudioChunk(samples[:, None], self._clock.now())
        if empty and not self._closed.is_set():
            raise InputError(
                f"No sound came from {self._name}.",
                "Pipe 16-bit mono PCM into it, at the rate of --input-rate.",
            )

    def _read(self) -> bytes | None:
        while not self._closed.is_set():
            try:
                ready, _, _ = select.select([self._descriptor], [], [], POLL_S)
                if ready:
                    return os.read(self._descriptor, READ_BYTES) or None
            except BlockingIOError:
                continue
            except OSError as error:
                raise InputError(f"{self._name} cannot be read: {error.strerror}.") from error
        return None

    def close(self) -> None:
        """End the iteration; a waiting read ends within a tenth of a second."""
        self._closed.set()
