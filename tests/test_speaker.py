"""The loudspeaker, with a card that a test owns; how sound keeps its time is in `test_playback`."""

import inspect
import sys
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from soundcards import BUILT_IN, OutputStream, SoundDevice

from musetalk_cli.errors import OutputError
from musetalk_cli.media.pipe_writer import STALL_S
from musetalk_cli.sinks import SpeakerSink
from musetalk_cli.types import Fate, Frame, FrameRequest, HeardSink, StreamFormat

RATE, FPS = 16_000, 25
SAMPLES = RATE // FPS
AHEAD_S = 0.02


@pytest.fixture
def module(monkeypatch):
    module = SoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def frame(index=0, audio=None, *, fate=Fate.SPEAKING, epoch=0):
    audio = np.full((SAMPLES, 1), 0.5, np.float32) if audio is None else audio
    request = FrameRequest(index, None, audio, 0.0, 0.0, 0, epoch=epoch)
    return Frame(request, np.zeros((2, 2, 3), np.uint8), Fraction(index, FPS), 0.0, fate)


class Playing:
    """A sink whose card takes a block each hundredth of a second, while the clock is waited on or stepped."""

    def __init__(self, module, device=None, channels=1):
        self.clock = FakeClock()
        self.sink = SpeakerSink(device, self.clock)
        self.sink.open(StreamFormat(2, 2, Fraction(FPS), RATE, channels))
        self.stream = module.streams[-1]
        self.pieces = []
        self.takes = True
        self._due = self.clock.time
        move = self.clock.wait

        def wait(seconds, wake):
            until = self.clock.time + seconds
            while self.clock.time < until and not wake.is_set():
                self.step(0.01)
            return move(0, wake)

        self.clock.wait = wait

    def step(self, seconds):
        until = self.clock.time + seconds
        while self.takes and not self.stream.closed and self._due <= until:
            self.clock.time = max(self.clock.time, self._due)
            self.pieces.append(self.stream.play(AHEAD_S))
            self._due += 0.01
        self.clock.time = until

    def write(self, *frames):
        for each in frames:
            self.sink.write(each)
            self.step(1 / FPS)

    @property
    def played(self):
        return np.concatenate(self.pieces)


def test_the_device_is_opened_at_its_own_rate_and_is_silent_until_a_frame_comes(module):
    playing = Playing(module)
    stream = playing.stream
    assert (stream.device, stream.samplerate, stream.channels, stream.dtype) == (2, 48_000, 2, "float32")
    assert (stream.blocksize, stream.active) == (480, True)
    playing.step(1)
    assert not playing.played.any()
    assert playing.sink.breaks == 0
    assert isinstance(playing.sink, HeardSink)
    assert playing.sink.watched


def test_a_frame_is_heard_its_delay_after_it_is_written(module):
    playing = Playing(module)
    playing.step(0.5)
    written = playing.clock.time
    begun = len(playing.played)
    playing.write(*[frame(n) for n in range(10)])
    first = np.flatnonzero(playing.played[begun:, 0] > 0.4)[0] / 48_000
    heard = written + AHEAD_S + first
    assert heard == pytest.approx(written + playing.sink.delay_s, abs=0.01)
    assert 0.03 < playing.sink.delay_s < 0.06


def test_all_frames_are_played_before_the_device_is_given_back(module):
    playing = Playing(module)
    playing.step(0.5)
    playing.write(*[frame(n) for n in range(25)])
    before = playing.clock.time
    playing.sink.finish()
    assert playing.stream.closed
    assert (np.abs(playing.played[:, 0]) > 0.01).sum() / 48_000 == pytest.approx(1, abs=0.01)
    assert playing.clock.time - before < 0.2
    assert playing.sink.breaks == 0
    playing.sink.finish()
    playing.sink.abort()
    playing.sink.write(frame(30))


@pytest.mark.parametrize(
    ("device", "channels", "wanted"),
    [
        (None, 1, [[0.5], [0.5]]),
        (None, 2, [[0.5], [-0.25]]),
        (None, 3, [[0.3], [-0.25]]),
        ("3", 2, [[0.125]]),
    ],
)
def test_channels_are_those_that_the_device_has(module, device, channels, wanted):
    playing = Playing(module, device, channels)
    playing.step(0.2)
    audio = np.tile(np.array([0.5, -0.25, 0.1], np.float32)[:channels], (SAMPLES, 1))
    playing.write(*[frame(n, audio) for n in range(10)])
    np.testing.assert_allclose(playing.pieces[-1].T, np.repeat(wanted, len(playing.pieces[-1]), 1), atol=1e-3)


def test_an_interrupt_is_heard_at_once_and_old_sound_is_not_played_any_more(module):
    playing = Playing(module)
    playing.step(0.5)
    playing.write(*[frame(n) for n in range(10)])
    begun = len(playing.played)
    playing.sink.mute(1)
    playing.write(frame(10), frame(11, fate=Fate.DISCARDED))
    muted = playing.played[begun:, 0]
    assert np.flatnonzero(np.abs(muted) > 1e-3)[-1] / 48_000 < 0.02
    playing.write(*[frame(n, epoch=1) for n in range(12, 20)])
    assert playing.pieces[-1][0, 0] == pytest.approx(0.5, abs=1e-3)
    assert playing.sink.breaks == 0


@pytest.mark.parametrize(
    "after",
    [
        frame(10, fate=Fate.DISCARDED),
        frame(10, np.zeros((SAMPLES, 1), np.float32), epoch=1, fate=Fate.IDLE),
    ],
)
def test_an_interrupt_that_nobody_told_is_heard_with_the_next_frame(module, after):
    playing = Playing(module)
    playing.step(0.5)
    playing.write(*[frame(n) for n in range(10)])
    begun = len(playing.played)
    playing.write(after)
    muted = playing.played[begun:, 0]
    assert np.flatnonzero(np.abs(muted) > 1e-3)[-1] / 48_000 < 0.02


@pytest.mark.parametrize("ahead", [0.0, -1.0])
def test_a_driver_that_does_not_know_the_time_is_asked_for_its_latency(module, ahead):
    playing = Playing(module)
    for _ in range(50):
        playing.stream.play(ahead)
        playing.clock.time += 0.01
    playing.sink.write(frame())
    assert playing.sink.delay_s == pytest.approx(playing.stream.latency + 0.01 + 0.016, abs=0.005)


def test_a_card_that_is_served_too_late_is_a_break(module):
    playing = Playing(module)
    playing.step(0.5)
    playing.write(*[frame(n) for n in range(10)])
    playing.stream.play(broken=True)
    assert playing.sink.breaks == 1


def test_a_device_that_goes_away_fails_the_next_write(module):
    playing = Playing(module)
    playing.step(0.5)
    playing.write(frame(0))
    playing.stream.unplug()
    with pytest.raises(OutputError, match=r"The loudspeaker HDMI 0 \(hw:0,3\) ended by itself"):
        playing.sink.write(frame(1))
    with pytest.raises(OutputError, match="ended by itself"):
        playing.sink.finish()
    playing.sink.abort()
    assert playing.stream.closed


def test_a_device_that_takes_nothing_fails_in_the_end(module):
    playing = Playing(module)
    playing.step(0.5)
    playing.takes = False
    for number in range(int(STALL_S * FPS) - 1):
        playing.write(frame(number))
    with pytest.raises(OutputError, match="took nothing for 10 s"):
        playing.write(frame(300), frame(301), frame(302))


def test_a_device_that_takes_nothing_at_the_end_is_not_waited_for_without_end(module):
    playing = Playing(module)
    playing.step(0.5)
    playing.write(frame(0))
    playing.takes = False
    with pytest.raises(OutputError, match="took nothing for 10 s"):
        playing.sink.finish()


def test_a_device_that_does_not_open_is_told_and_left_closed(module):
    module.fails = "Device unavailable [PaErrorCode -9985]"
    sink = SpeakerSink(None, FakeClock())
    with pytest.raises(OutputError, match=r"HDMI 0 \(hw:0,3\) cannot be used: Device unavailable"):
        sink.open(StreamFormat(2, 2, Fraction(25), RATE, 1))
    assert module.streams[0].closed
    sink.abort()


def test_a_sink_that_was_never_opened_lets_go_of_nothing(module):
    sink = SpeakerSink("3", FakeClock())
    assert (sink.device.name, sink.breaks) == (BUILT_IN, 0)
    sink.mute(3)
    sink.abort()
    assert module.streams == []


def test_without_sounddevice_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(OutputError, match="A loudspeaker needs sounddevice") as caught:
        SpeakerSink(None, FakeClock())
    assert caught.value.hint == "Install it with: pip install 'musetalk-cli[sound]'"


def test_the_stand_in_is_called_as_the_library_is():
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        pytest.skip(f"sounddevice cannot be imported: {error}")
    real = inspect.signature(sounddevice.check_output_settings).parameters
    assert list(inspect.signature(SoundDevice().check_output_settings).parameters) == list(real)
    real = inspect.signature(sounddevice.OutputStream).parameters
    assert list(inspect.signature(OutputStream).parameters) == list(real)
    assert isinstance(sounddevice.OutputStream.latency, property)
    assert hasattr(sounddevice.CallbackFlags, "output_underflow")
