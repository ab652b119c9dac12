"""Stand-ins for the module `sounddevice` and what it records and plays with."""

import threading
import time
from types import SimpleNamespace

import numpy as np

USB, MIX, SPEAKER, BUILT_IN = "USB Audio: - (hw:1,0)", "pulse", "HDMI 0 (hw:0,3)", "USB Audio Pro"


class PortAudioError(Exception):
    """The one error of PortAudio."""


class Stream:
    """What recordings and playings without a device have in common."""

    def __init__(
        self,
        samplerate=None,
        blocksize=None,
        device=None,
        channels=None,
        dtype=None,
        latency=None,
        extra_settings=None,
        callback=None,
        finished_callback=None,
        clip_off=None,
        dither_off=None,
        never_drop_input=None,
        prime_output_buffers_using_stream_callback=None,
    ):
        self.samplerate, self.blocksize, self.device, self.channels = samplerate, blocksize, device, channels
        self.dtype, self.callback, self.finished_callback = dtype, callback, finished_callback
        self.latency = 0.02
        self.active, self.closed = False, False
        self.fails = None

    def start(self):
        if self.fails:
            raise PortAudioError(self.fails)
        self.active = True

    def close(self, ignore_errors=True):
        assert not self.closed
        self.active, self.closed = False, True
        self.finished_callback()

    def unplug(self):
        """What PortAudio does where the device goes away."""
        self.active = False
        self.finished_callback()


class InputStream(Stream):
    """A recording without a device: the test says what comes."""

    def speak(self, samples):
        """One block from PortAudio, whose memory is used again afterwards."""
        block = np.array(samples, np.float32).reshape(-1, self.channels)
        self.callback(block, len(block), None, None)
        block[:] = np.nan


class OutputStream(Stream):
    """A loudspeaker without a device: the test says when it takes sound."""

    def play(self, ahead=0.02, *, broken=False):
        """One block as PortAudio asks for it, to be heard `ahead` seconds from now; `[n, channels]`."""
        block = np.full((self.blocksize, self.channels), np.nan, np.float32)
        times = SimpleNamespace(inputBufferAdcTime=0.0, currentTime=77.0, outputBufferDacTime=77.0 + ahead)
        self.callback(block, len(block), times, SimpleNamespace(output_underflow=broken))
        return block


class SoundDevice:
    """A stand-in for the module `sounddevice`."""

    PortAudioError = PortAudioError

    def __init__(self):
        self.default = SimpleNamespace(device=[1, 2])
        self.streams = []
        self.mono = True
        self.fails = None
        self.infos = [
            self._info(0, USB, 2, 0, 44100.0),
            self._info(1, MIX, 32, 32, 48000.0),
            self._info(2, SPEAKER, 0, 8, 48000.0),
            self._info(3, BUILT_IN, 1, 1, 16000.0),
        ]

    def _info(self, index, name, inputs, outputs, rate):
        return {
            "name": name,
            "index": index,
            "hostapi": 0,
            "max_input_channels": inputs,
            "max_output_channels": outputs,
            "default_low_input_latency": 0.01,
            "default_low_output_latency": 0.01,
            "default_high_input_latency": 0.04,
            "default_high_output_latency": 0.04,
            "default_samplerate": rate,
        }

    def query_devices(self, device=None, kind=None):
        if device is None and kind is None:
            return tuple(self.infos)
        assert kind in {"input", "output"}
        index = self.default.device[kind == "output"]
        if not 0 <= index < len(self.infos):
            raise PortAudioError(f"Error querying device {index}")
        if self.infos[index][f"max_{kind}_channels"] < 1:
            raise ValueError(f"Not an {kind} device: {self.infos[index]['name']!r}")
        return self.infos[index]

    def check_input_settings(
        self, device=None, channels=None, dtype=None, extra_settings=None, samplerate=None
    ):
        self._check("input", device, channels, dtype, samplerate)

    def check_output_settings(
        self, device=None, channels=None, dtype=None, extra_settings=None, samplerate=None
    ):
        self._check("output", device, channels, dtype, samplerate)

    def _check(self, kind, device, channels, dtype, samplerate):
        info = self.infos[device]
        if (channels == 1 and not self.mono) or channels > info[f"max_{kind}_channels"]:
            raise PortAudioError("Invalid number of channels [PaErrorCode -9998]")
        assert (dtype, samplerate) == ("float32", info["default_samplerate"])

    def InputStream(self, **settings):  # noqa: N802 - the name it stands for
        return self._opened(InputStream(**settings))

    def OutputStream(self, **settings):  # noqa: N802 - the name it stands for
        return self._opened(OutputStream(**settings))

    def _opened(self, stream):
        stream.fails = self.fails
        self.streams.append(stream)
        return stream


class PlayingStream(InputStream):
    """A recording of a sound that is spoken at its own speed, from the moment the stream starts."""

    sound = None
    then = None

    def start(self):
        super().start()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, name="PortAudio")
        self._thread.start()

    def _play(self):
        begun = time.perf_counter()
        for first in range(0, len(self.sound), self.blocksize):
            block = self.sound[first : first + self.blocksize]
            due = begun + (first + len(block)) / self.samplerate
            if self._stopped.wait(max(0.0, due - time.perf_counter())):
                return
            self.speak(np.repeat(block[:, None], self.channels, axis=1))
        self.then(self)

    def close(self, ignore_errors=True):
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        super().close(ignore_errors)


class PlayedStream(OutputStream):
    """A loudspeaker that takes sound at its own speed, from the moment the stream starts.

    Attributes:
        heard: What was taken, and when it was heard.
    """

    def start(self):
        super().start()
        self.heard = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, name="PortAudio")
        self._thread.start()

    def _play(self):
        begun, blocks = time.perf_counter(), 0
        while not self._stopped.is_set():
            ahead = begun + self.latency + blocks * self.blocksize / self.samplerate - time.perf_counter()
            self.heard.append((time.perf_counter() + ahead, self.play(ahead)))
            blocks += 1
            due = begun + blocks * self.blocksize / self.samplerate
            self._stopped.wait(max(0.0, due - time.perf_counter()))

    def close(self, ignore_errors=True):
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        super().close(ignore_errors)


class PlayingDevice(SoundDevice):
    """A sound card that hears `sound(rate)`, float32 `[n]`, and then does `then(stream)`, and that plays."""

    def __init__(self, sound, then):
        super().__init__()
        self._sound, self._then = sound, then

    def InputStream(self, **settings):  # noqa: N802 - the name it stands for
        stream = PlayingStream(**settings)
        stream.sound, stream.then = self._sound(int(stream.samplerate)), self._then
        self.streams.append(stream)
        return stream

    def OutputStream(self, **settings):  # noqa: N802 - the name it stands for
        return self._opened(PlayedStream(**settings))
