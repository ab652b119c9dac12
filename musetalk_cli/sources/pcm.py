"""Raw 16-bit PCM from a file descriptor, read as it comes."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
import threading
from collections.abc import Iterator

from musetalk_cli.clock import Clock
from musetalk_cli.errors import InputError
from musetalk_cli.sources.containers import refusal
from musetalk_cli.sources.s16 import READ_BYTES, PcmDecoder, check_format
from musetalk_cli.types import AudioBlock, Delivery, Samples

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How soon `close` ends a read."""


class PcmSource:
    """Little-endian signed 16-bit PCM, interleaved, from a pipe, a socket or a file.

    A short read is not an end, and part of a sample waits for the rest; only the stream's end ends it.

    Args:
        descriptor: Open file descriptor; it stays the caller's.
        sample_rate: Samples per second.
        clock: Where time comes from.
        name: What to call it in messages.
        channels: Channels of the sound.

    Raises:
        InputError: The rate is outside 4000..384000, or the channels outside 1..8.
    """

    lost_samples = 0

    def __init__(
        self,
        descriptor: int,
        sample_rate: int,
        clock: Clock,
        name: str = "standard input",
        channels: int = 1,
    ) -> None:
        check_format(sample_rate, channels)
        self._descriptor = descriptor
        self._clock = clock
        self._name = name
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._decoder = PcmDecoder(channels)
        self._heard = False
        self.delivery = Delivery.RECORDED if self._is_recording() else Delivery.SENT
        self.sample_rate = sample_rate
        self.channels = channels

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield what each read brings.

        Raises:
            InputError: The stream ended without one sample, is a container of sound, or cannot be read.
        """
        while (samples := self._wait()) is not None:
            if len(samples):
                yield AudioBlock(samples, self._clock.now())
        if self._decoder.incomplete and not self._closed.is_set():
            log.warning(
                "%s ended within a sample: %d bytes are dropped. Is it 16-bit PCM with --input-channels %d?",
                self._name,
                self._decoder.incomplete,
                self.channels,
            )
        if not self._heard and not self._closed.is_set():
            raise InputError(
                f"No sound came from {self._name}.",
                "Pipe 16-bit PCM into it, as --input-rate and --input-channels say.",
            )

    def discard(self) -> None:
        """Throw away what can be read without waiting, up to 4 MiB; a recording, a regular file, goes on."""
        with self._lock, contextlib.suppress(OSError):
            if self._is_recording():
                return
            self._heard = self._decoder.discard(self._read) > 0 or self._heard

    def close(self) -> None:
        """End the iteration; a waiting read ends within a tenth of a second."""
        self._closed.set()

    def _wait(self) -> Samples | None:
        """The next samples, none of them where a read brought less than one; None at the end."""
        while not self._closed.is_set():
            try:
                self._poll(POLL_S)
                with self._lock:
                    data = self._read(READ_BYTES)
                    samples = None if data is None else self._decode(data)
            except OSError as error:
                raise InputError(f"{self._name} cannot be read: {error.strerror}.") from error
            if self._decoder.container:
                raise refusal(self._name, self._decoder.container, self.sample_rate, self.channels)
            if samples is not None:
                return samples if data or len(samples) else None
        return None

    def _read(self, most: int) -> bytes | None:
        """Up to `most` bytes without waiting, empty at the stream's end; None where there are none yet."""
        # looked at again under the lock: `discard` may have taken what was there
        if self._closed.is_set() or not self._poll(0):
            return None
        try:
            return os.read(self._descriptor, most)
        except BlockingIOError:
            return None

    def _is_recording(self) -> bool:
        """True for a regular file, which waits and does not come at its own time."""
        with contextlib.suppress(OSError):  # whoever reads it will say why not
            return stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        return False

    def _poll(self, seconds: float) -> bool:
        """True where the descriptor can be read, or will tell why not, within so many seconds."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        return bool(poller.poll(seconds * 1e3))

    def _decode(self, data: bytes) -> Samples:
        samples = self._decoder.decode(data) if data else self._decoder.flush()
        self._heard = self._heard or len(samples) > 0
        return samples
