"""A sound file, as fast as it decodes or at its own speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from musetalk_cli.clock import Clock, Pacer
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.types import AudioBlock, Delivery

PACED_BLOCKS_PER_SECOND = 50
"""As a microphone gives them."""
BLOCKS_PER_SECOND = 10
"""Where nobody waits for each, fewer and larger ones cost less."""


class FileSource:
    """Sound from a file.

    Paced, a block arrives when its last sample would have been spoken, 20 ms at a time, like a microphone.

    Args:
        path: Any file with an audio stream.
        clock: Where time comes from.
        pace: Deliver at the sound's own speed.

    Raises:
        InputError: The file holds no sound that can be read.
    """

    lost_samples = 0

    def __init__(self, path: Path, clock: Clock, *, pace: bool) -> None:
        self._reader = SoundReader(path)
        self._clock = clock
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._reading = False
        self.delivery = Delivery.PLAYED if pace else Delivery.RECORDED
        self._paced = pace
        self.sample_rate = self._reader.sample_rate
        self.channels = self._reader.channels

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield the blocks in order until the file or the source ends."""
        with self._lock:
            if self._closed.is_set():
                return
            self._reading = True
        size = max(1, self.sample_rate // (PACED_BLOCKS_PER_SECOND if self._paced else BLOCKS_PER_SECOND))
        pacer = Pacer(self._clock, self.sample_rate, self._clock.now())
        heard = 0
        try:
            for samples in self._reader.blocks(size):
                heard += len(samples)
                arrived = pacer.wait_for(heard, self._closed) if self._paced else self._clock.now()
                if self._closed.is_set():
                    return
                yield AudioBlock(samples, arrived)
        finally:
            self._reader.close()

    def discard(self) -> None:
        """Do nothing: a recording goes on.

        What was not yet taken of it is still to come. At its own speed that is what lies after the interrupt;
        where it waits, what lies after the last sound that the frames were made of.
        """

    def close(self) -> None:
        """End the iteration at its next block; the decoder ends with it, or now where there is none."""
        with self._lock:
            self._closed.set()
            if not self._reading:
                self._reader.close()
