"""A loudspeaker that the frames' own sound is heard from, through PortAudio."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.errors import OutputError
from musetalk_cli.media import soundcards
from musetalk_cli.media.pipe_writer import STALL_S
from musetalk_cli.media.sound_channels import as_stereo
from musetalk_cli.media.soundcards import LOUDSPEAKER
from musetalk_cli.sinks.playback import Playback
from musetalk_cli.types import Fate, Frame, Samples, StreamFormat

LATENCY_S = 0.03
"""Sound that the sound card is asked to hold: as long as a thread of a busy Python may have to wait."""
BLOCKS_PER_SECOND = 100


class SpeakerSink:
    """Plays each frame's sound from the time at which it is written, `delay_s` later.

    Clocks that drift apart, frames that come late and interrupts are met as `Playback` says; an interrupt is
    heard at once where `mute` is called, else with the next frame.

    Args:
        device: Index of the device or part of its name; None is the default one.
        clock: Where time comes from.

    Attributes:
        name: What messages and reports call it.
        watched: True: somebody listens as the frames come.
        device: What is played with.

    Raises:
        OutputError: sounddevice or PortAudio is missing, there is no such device, or it cannot be used.
    """

    def __init__(self, device: str | None, clock: Clock) -> None:
        self.name = "loudspeaker"
        self.watched = True
        self._sounddevice = soundcards.load(LOUDSPEAKER)
        self.device = soundcards.find_device(device, LOUDSPEAKER)
        self._channels = soundcards.usable_channels(self.device, LOUDSPEAKER, (2, 1))
        self._clock = clock
        self._stream: Any = None
        self._playback: Playback | None = None
        self._called = 0.0
        self._epoch = 0
        self._latency = LATENCY_S
        self._ended = threading.Event()
        self._lock = threading.Lock()

    @property
    def delay_s(self) -> float:
        """Seconds from the time at which a frame is written to the time at which it is heard."""
        return LATENCY_S if self._playback is None else self._playback.delay_s

    @property
    def breaks(self) -> int:
        """How often the sound was broken off, since frames or the processor came too late."""
        return 0 if self._playback is None else self._playback.breaks

    def open(self, stream: StreamFormat) -> None:
        """Open the device, which plays silence until the first frame.

        Raises:
            OutputError: It cannot be opened.
        """
        rate = self.device.sample_rate
        block = rate // BLOCKS_PER_SECOND
        with self._lock:
            try:
                self._stream = self._sounddevice.OutputStream(
                    samplerate=rate,
                    blocksize=block,
                    device=self.device.index,
                    channels=self._channels,
                    dtype="float32",
                    latency=LATENCY_S,
                    callback=self._play,
                    finished_callback=self._ended.set,
                )
                self._latency = self._stream.latency
                self._playback = Playback(
                    stream.sample_rate, rate, self._channels, self._latency + block / rate
                )
                self._called = self._clock.now()
                self._stream.start()
            except (self._sounddevice.PortAudioError, ValueError) as error:
                self._close()
                raise soundcards.unusable(self.device, LOUDSPEAKER, error) from error

    def write(self, frame: Frame) -> None:
        """Play a frame's sound.

        Raises:
            OutputError: The device ended by itself, or took nothing for `STALL_S`.
        """
        playback = self._playback
        if self._stream is None or playback is None:
            return
        now = self._clock.now()
        self._check(now)
        request = frame.request
        if request.epoch > self._epoch:
            self.mute(request.epoch)
        sound = self._for_the_card(request.audio)
        if frame.fate is Fate.DISCARDED or request.epoch < self._epoch:
            playback.mute()
            sound = np.zeros_like(sound)
        playback.append(sound, now)

    def mute(self, epoch: int) -> None:
        """What was written is not heard any more, nor is what belongs to an earlier epoch; from any thread.

        Args:
            epoch: How many interrupts the stream has seen.
        """
        self._epoch = max(epoch, self._epoch)
        if self._playback is not None:
            self._playback.mute()

    def finish(self) -> None:
        """Play what is left, and give the device back.

        Raises:
            OutputError: The device ended by itself, or took nothing for `STALL_S`.
        """
        if self._playback is not None and self._stream is not None:
            self._playback.end()
            if self._clock.wait(STALL_S, self._playback.drained):
                self._clock.wait(self._playback.lead_s, self._ended)
            self._check(self._clock.now())
        self.abort()

    def abort(self) -> None:
        """Give the device back at once; safe to call at any time, from any thread."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            stream.close()

    def _check(self, now: float) -> None:
        """Fail where the device ended, or where PortAudio asks for no sound.

        Raises:
            OutputError: It does.
        """
        if self._ended.is_set():
            raise soundcards.ended(self.device, LOUDSPEAKER)
        if now - self._called > STALL_S:
            raise OutputError(f"The loudspeaker {self.device.name} took nothing for {STALL_S:g} s.")

    def _for_the_card(self, samples: Samples) -> Samples:
        """Sound with as many channels as the sound card takes."""
        channels = samples.shape[1]
        if channels == self._channels:
            return samples
        if self._channels == 1:
            mean: Samples = samples.mean(axis=1, keepdims=True, dtype=np.float32)
            return mean
        return np.repeat(samples, 2, axis=1) if channels == 1 else as_stereo(samples)

    def _play(self, out: Samples, count: int, time: Any, status: Any) -> None:  # noqa: ANN401 - no types
        """PortAudio's thread: what the sound card plays next."""
        now = self._called = self._clock.now()
        if (playback := self._playback) is None:
            out.fill(0)
            return
        if status.output_underflow:
            playback.broke()
        ahead = time.outputBufferDacTime - time.currentTime
        out[:] = playback.take(count, now, ahead if ahead > 0 else self._latency)
