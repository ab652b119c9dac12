"""Sound from a microphone, through PortAudio."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from musetalk_cli.clock import Clock
from musetalk_cli.media import soundcards
from musetalk_cli.media.soundcards import MICROPHONE
from musetalk_cli.types import AudioBlock, Delivery, Samples

QUEUE_S = 2
"""Sound that may wait to be taken."""
BLOCKS_PER_SECOND = 50
POLL_S = 0.1
"""How soon it is noticed that the device has ended."""
GAP_S = 0.1
"""How late a block may come; what comes later had silence in its place."""
LEAD_S = 0.25
"""How far the recorded sound may run ahead of the clock."""
LEAD_COUNTS = 0.99
"""What sound counts beyond half of that: a device whose clock is 1 % fast loses nothing."""


class MicSource:
    """Sound from a microphone as it is recorded, at the device's own rate.

    The device is found and asked now, and recorded from when the iteration begins. What a device that stalled
    gives at once afterwards is dropped: silence has taken its place, and with both everything would be late.

    Args:
        device: Index of the device or part of its name; None is the default one.
        clock: Where time comes from.

    Attributes:
        device: What is recorded with.
        lost_samples: Samples of each channel that were dropped: the oldest where nobody took them in time,
            and what came faster than the clock.

    Raises:
        InputError: sounddevice or PortAudio is missing, there is no such device, or it cannot be used.
    """

    delivery = Delivery.LIVE

    def __init__(self, device: str | None, clock: Clock) -> None:
        self._sounddevice = soundcards.load(MICROPHONE)
        self.device = soundcards.find_device(device, MICROPHONE)
        self.sample_rate = self.device.sample_rate
        self.channels = soundcards.usable_channels(self.device, MICROPHONE, (1, 2))
        self.lost_samples = 0
        self._clock = clock
        self._covered = -math.inf
        self._queue: deque[AudioBlock] = deque()
        self._queued = 0
        self._queue_lock = threading.Lock()
        self._stream: Any = None
        self._stream_lock = threading.Lock()
        self._closed = threading.Event()
        self._ended = threading.Event()
        self._wake = threading.Event()

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield the sound as it is recorded.

        Raises:
            InputError: The device cannot be opened, or ended by itself.
        """
        self._open()
        try:
            while not self._closed.is_set():
                # before the queue is looked at, so that nothing is left in it when the device has ended
                has_ended = self._has_ended()
                block = self._next()
                if block is not None:
                    if self._is_on_time(block):
                        yield block
                elif has_ended:
                    raise soundcards.ended(self.device, MICROPHONE)
                else:
                    self._clock.wait(POLL_S, self._wake)
        finally:
            self._shut()

    def discard(self) -> None:
        """Throw away what was recorded and not taken."""
        with self._queue_lock:
            self._queue.clear()
            self._queued = 0

    def close(self) -> None:
        """Stop recording and end the iteration."""
        self._closed.set()
        self._wake.set()
        self._shut()

    def _open(self) -> None:
        with self._stream_lock:
            if self._closed.is_set():
                return
            try:
                self._stream = self._sounddevice.InputStream(
                    samplerate=self.sample_rate,
                    blocksize=self.sample_rate // BLOCKS_PER_SECOND,
                    device=self.device.index,
                    channels=self.channels,
                    dtype="float32",
                    callback=self._recorded,
                    finished_callback=self._finished,
                )
                self._stream.start()
            except (self._sounddevice.PortAudioError, ValueError) as error:
                self._close_stream()
                raise soundcards.unusable(self.device, MICROPHONE, error) from error

    def _shut(self) -> None:
        with self._stream_lock:
            self._close_stream()

    def _close_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _recorded(self, data: Samples, _frames: int, _time: object, _status: object) -> None:
        """PortAudio's thread: keep a copy, and the newest two seconds."""
        with self._queue_lock:
            while self._queue and self._queued + len(data) > QUEUE_S * self.sample_rate:
                oldest = len(self._queue.popleft().samples)
                self._queued -= oldest
                self.lost_samples += oldest
            # PortAudio uses its buffer again
            self._append(data.copy())

    def _append(self, samples: Samples) -> None:
        self._queue.append(AudioBlock(samples, self._clock.now()))
        self._queued += len(samples)
        self._wake.set()

    def _finished(self) -> None:
        """PortAudio's thread: nothing more comes."""
        self._ended.set()
        self._wake.set()

    def _is_on_time(self, block: AudioBlock) -> bool:
        """False for sound that runs ahead of the clock, since silence has taken its place."""
        seconds = len(block.samples) / self.sample_rate
        self._covered = max(self._covered, block.arrived - seconds - GAP_S)
        lead = self._covered + seconds - block.arrived
        if lead > LEAD_S:
            with self._queue_lock:
                self.lost_samples += len(block.samples)
            return False
        self._covered += seconds * (LEAD_COUNTS if lead > LEAD_S / 2 else 1)
        return True

    def _next(self) -> AudioBlock | None:
        """The oldest block, or None."""
        with self._queue_lock:
            # together with the look into the queue, so that no block is slept through
            self._wake.clear()
            if not self._queue:
                return None
            block = self._queue.popleft()
            self._queued -= len(block.samples)
            return block

    def _has_ended(self) -> bool:
        """True where the device ended by itself."""
        with self._stream_lock:
            return not self._closed.is_set() and (self._ended.is_set() or not self._stream.active)
