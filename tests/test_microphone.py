import builtins
import inspect
import sys
import threading
from collections import deque

import numpy as np
import pytest
from clocks import FakeClock
from soundcards import BUILT_IN, MIX, USB, InputStream, PortAudioError, SoundDevice

from musetalk_cli.errors import InputError
from musetalk_cli.media.soundcards import MICROPHONE, Device, list_devices
from musetalk_cli.sources import MicSource
from musetalk_cli.sources.microphone import GAP_S, LEAD_S
from musetalk_cli.types import Delivery

START = 1000.0
RATE = 16000
BLOCK_S = 0.02


@pytest.fixture
def module(monkeypatch):
    module = SoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


class Recording:
    """A source whose iteration is in the test's hands: each wait for sound plays the next act of a script.

    An act is a list of blocks that come at once, or one block, or None where none comes. It takes as long as
    a block lasts, by the device's clock: `speed` is how much faster than the program's it is.
    """

    def __init__(self, module, device="3", speed=1.0):
        self.clock = FakeClock(START)
        self.source = MicSource(device, self.clock)
        self._module = module
        self.script = deque()

        def act(_, wake):
            if not self.script:
                self.source.close()
                return True
            blocks = self.script.popleft()
            self.clock.time += BLOCK_S / speed
            for block in blocks if isinstance(blocks, list) else [blocks]:
                if block is not None:
                    self.stream.speak(block)
            return wake.is_set()

        self.clock.wait = act

    @property
    def stream(self):
        return self._module.streams[-1]

    def play(self, *script):
        """Everything that is yielded while the script is played."""
        self.script.extend(script)
        return list(self.source)

    def seconds(self, *script):
        """How much sound is yielded while the script is played."""
        self.script.extend(script)
        return sum(len(block.samples) for block in self.source) / RATE

    @property
    def lost(self):
        """Seconds of sound that were lost."""
        return self.source.lost_samples / RATE


def ramp(start, count=320):
    return np.arange(start, start + count, dtype=np.float32) / 32768


def test_devices_are_those_with_inputs(module):
    assert list_devices(MICROPHONE) == [
        Device(0, USB, 2, 44100, is_default=False),
        Device(1, MIX, 32, 48000, is_default=True),
        Device(3, BUILT_IN, 1, 16000, is_default=False),
    ]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [(None, 1), ("0", 0), ("3", 3), ("pul", 1), ("PULSE", 1), ("hw:1", 0), ("pro", 3), ("usb audio pro", 3)],
)
def test_a_device_is_found_by_number_part_of_its_name_or_default(module, wanted, index):
    source = MicSource(wanted, FakeClock())
    assert source.device.index == index
    assert (source.sample_rate, source.delivery) == (source.device.sample_rate, Delivery.LIVE)
    assert module.streams == []


def test_a_whole_name_goes_before_parts_of_names(module):
    module.infos[3]["name"] = "pulse of another"
    assert MicSource("Pulse", FakeClock()).device.index == 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("2", "--mic 2 is no microphone"),
        ("17", "--mic 17 is no microphone"),
        ("HDMI", "--mic HDMI is no microphone"),
        ("²", "--mic ² is no microphone"),
        ("usb", r"--mic usb fits more than one microphone: 0, 3\."),
    ],
)
def test_a_device_that_is_not_meant_clearly_is_refused(module, wanted, message):
    with pytest.raises(InputError, match=message):
        MicSource(wanted, FakeClock())


@pytest.mark.parametrize("index", [-1, 2])
def test_without_a_default_device_one_must_be_named(module, index):
    module.default.device[0] = index
    assert not any(device.is_default for device in list_devices(MICROPHONE))
    assert MicSource("0", FakeClock()).device.index == 0
    with pytest.raises(InputError, match="No microphone is the default one"):
        MicSource(None, FakeClock())


@pytest.mark.parametrize("wanted", [None, "0", "usb"])
def test_without_any_device_other_sources_are_named(module, wanted):
    module.infos = module.infos[2:3]
    with pytest.raises(InputError, match="There is no microphone") as caught:
        MicSource(wanted, FakeClock())
    assert "--audio FILE or --listen" in caught.value.hint


@pytest.mark.parametrize(("mono", "channels"), [(True, 1), (False, 2)])
def test_one_channel_is_taken_where_the_device_gives_one(module, mono, channels):
    module.mono = mono
    assert MicSource("0", FakeClock()).channels == channels


def test_a_device_that_gives_no_such_sound_is_told_before_it_is_opened(module):
    module.mono = False
    with pytest.raises(InputError, match=f"The microphone {BUILT_IN} cannot be used: Invalid number"):
        MicSource("3", FakeClock())


def test_a_device_that_does_not_open_is_told_and_left_closed(module):
    module.fails = "Device unavailable [PaErrorCode -9985]"
    with pytest.raises(InputError, match="cannot be used: Device unavailable"):
        list(MicSource("3", FakeClock()))
    assert module.streams[0].closed


def fails_to_import(monkeypatch, error):
    real = builtins.__import__

    def importing(name, *rest, **named):
        if name == "sounddevice":
            raise error
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (
            ModuleNotFoundError("No module named 'sounddevice'"),
            "needs sounddevice",
            "pip install 'musetalk-cli[sound]'",
        ),
        (OSError("PortAudio library not found"), "needs PortAudio, which is not on", "libportaudio2"),
        (PortAudioError("Error initializing PortAudio"), "cannot be started: Error init", None),
    ],
)
def test_what_is_missing_is_told_with_what_to_install(monkeypatch, error, message, hint):
    fails_to_import(monkeypatch, error)
    for use in (lambda: list_devices(MICROPHONE), lambda: MicSource(None, FakeClock())):
        with pytest.raises(InputError, match=message) as caught:
            use()
        assert hint is None or hint in caught.value.hint


def test_sound_comes_as_it_was_recorded_and_when(module):
    recording = Recording(module)
    blocks = recording.play(ramp(0), ramp(320), ramp(640))
    stream = module.streams[0]
    assert (stream.samplerate, stream.device, stream.channels, stream.dtype) == (16000, 3, 1, "float32")
    assert stream.closed
    np.testing.assert_array_equal(np.concatenate([p.samples for p in blocks])[:, 0], ramp(0, 960))
    assert [block.arrived for block in blocks] == pytest.approx([START + 0.02, START + 0.04, START + 0.06])


def test_nothing_is_made_up_while_a_device_gives_nothing(module):
    """Silence is put in where the stream's time is known; a source that did it too would make it twice."""
    first, second = Recording(module).play(ramp(1), *[None] * 500, ramp(2))
    np.testing.assert_array_equal(first.samples[:, 0], ramp(1))
    np.testing.assert_array_equal(second.samples[:, 0], ramp(2))
    assert second.arrived - first.arrived == pytest.approx(501 * BLOCK_S)
    assert not first.ends
    assert not second.ends


def test_only_the_newest_two_seconds_wait(module):
    recording = Recording(module)
    blocks = iter(recording.source)
    recording.script.append(ramp(0))
    next(blocks)
    for block in range(1, 121):
        recording.clock.time += 0.02
        recording.stream.speak(ramp(block * 320))
    assert recording.source.lost_samples == 20 * 320
    found = np.concatenate([block.samples for block in blocks])[:, 0]
    np.testing.assert_array_equal(found, ramp(21 * 320, 100 * 320))


def stall(seconds):
    """A script: nothing for so long, and then all of it at once."""
    acts = round(seconds / BLOCK_S)
    return [*[None] * (acts - 1), [ramp(1)] * acts]


@pytest.mark.parametrize("seconds", [0.5, 1.0, 2.0])
def test_what_a_stalled_device_gives_afterwards_does_not_run_ahead_of_the_clock(module, seconds):
    """Silence took the place of all but `GAP_S` of it; what leads by more than `LEAD_S` then is dropped."""
    recording = Recording(module)
    found = recording.play(*[ramp(1)] * 50, *stall(seconds), *[ramp(2)] * 500)
    came = sum(len(block.samples) for block in found) / RATE
    kept = came - 11.0
    assert kept == pytest.approx(GAP_S + LEAD_S, abs=BLOCK_S)
    assert recording.lost == pytest.approx(seconds - kept)
    assert all((block.samples[:, 0] == ramp(2)).all() for block in found[-500:]), (
        "what comes in time is heard"
    )


def test_a_device_that_stalls_again_and_again_never_gets_further_ahead(module):
    recording = Recording(module)
    came = recording.seconds(*[*stall(1.0), *[ramp(1)] * 5] * 20)
    assert came <= 20 * (0.1 + GAP_S + LEAD_S + BLOCK_S)
    assert came + recording.lost == pytest.approx(20 * 1.1)


@pytest.mark.parametrize("speed", [0.99, 1.0, 1.01])
def test_sound_that_comes_unevenly_loses_nothing(module, speed):
    """Blocks that come in pairs, and every second the last 160 ms at once."""
    recording = Recording(module, speed=speed)
    second = [[ramp(1)] * 2 if act % 2 else None for act in range(42)] + stall(0.16)
    assert recording.seconds(*second * 60) == pytest.approx(60.0)
    assert recording.lost == 0


@pytest.mark.parametrize("speed", [0.99, 1.0, 1.01])
def test_a_clock_that_is_a_hundredth_off_loses_nothing_for_ever(module, speed):
    """Ten minutes, in which the fastest device has given six seconds more than the clock has counted."""
    recording = Recording(module, speed=speed)
    sound = ramp(1)
    assert recording.seconds(*[sound] * (10 * 60 * 50)) == pytest.approx(600.0)
    assert recording.lost == 0


def test_a_fast_device_that_stalls_loses_what_came_in_the_stall_and_nothing_later(module):
    recording = Recording(module, speed=1.01)
    sound = ramp(1)
    came = recording.seconds(*[sound] * (2 * 60 * 50), *stall(1.0), *[sound] * (2 * 60 * 50))
    assert came - 240.0 == pytest.approx(GAP_S + LEAD_S, abs=2 * BLOCK_S)
    assert came + recording.lost == pytest.approx(241.0)


def test_a_device_that_is_much_too_fast_is_held_to_the_clock(module):
    """Its sound counts for a hundredth less at the most, so no more than that comes beyond its time."""
    recording = Recording(module, speed=1.2)
    came = recording.seconds(*[ramp(1)] * (60 * 50))
    assert came * 0.99 <= recording.clock.now() - START + LEAD_S + GAP_S
    assert came >= recording.clock.now() - START
    assert came + recording.lost == pytest.approx(60.0)


def test_sound_that_was_recorded_in_time_and_is_taken_late_is_not_dropped(module):
    """When it was recorded counts, not when it was taken."""
    recording = Recording(module)
    blocks = iter(recording.source)
    recording.script.append(ramp(0))
    next(blocks)
    for block in range(1, 91):
        recording.clock.time += BLOCK_S
        recording.stream.speak(ramp(block * 320))
    recording.clock.time += 1
    found = np.concatenate([block.samples for block in blocks])[:, 0]
    np.testing.assert_array_equal(found, ramp(320, 90 * 320))
    assert recording.lost == 0


def test_a_discard_throws_away_what_waits_and_nothing_that_comes_later(module):
    recording = Recording(module)
    blocks = iter(recording.source)
    recording.script.append(ramp(1))
    next(blocks)
    recording.clock.time += 1
    for _ in range(50):
        recording.stream.speak(ramp(1))
    recording.source.discard()
    recording.script.extend([None, *[ramp(5)] * 100])
    for _ in range(100):
        np.testing.assert_array_equal(next(blocks).samples[:, 0], ramp(5))
    assert recording.source.lost_samples == 0
    assert list(blocks) == []


@pytest.mark.parametrize("told", [True, False])
def test_a_device_that_is_unplugged_is_told_after_its_last_sound(module, told):
    recording = Recording(module)
    blocks = iter(recording.source)
    recording.script.append(ramp(1))
    next(blocks)
    recording.stream.speak(ramp(7))
    recording.stream.active = told
    if told:
        recording.stream.finished_callback()
    np.testing.assert_array_equal(next(blocks).samples[:, 0], ramp(7))
    with pytest.raises(InputError, match=f"The microphone {BUILT_IN} ended by itself"):
        next(blocks)
    assert recording.stream.closed


def test_close_ends_a_waiting_iteration_from_another_thread(module):
    class WaitingClock(FakeClock):
        def __init__(self):
            super().__init__(START)
            self.waiting = threading.Event()

        def wait(self, seconds, wake):
            self.waiting.set()
            return wake.wait(10)

    clock = WaitingClock()
    source = MicSource("3", clock)
    found = []
    thread = threading.Thread(target=lambda: found.extend(source))
    thread.start()
    assert clock.waiting.wait(10)
    source.close()
    source.close()
    thread.join(5)
    assert not thread.is_alive()
    assert found == []
    assert module.streams[0].closed
    assert list(source) == []
    assert len(module.streams) == 1


def test_an_iteration_that_is_given_up_closes_the_device(module):
    recording = Recording(module)
    blocks = iter(recording.source)
    recording.script.append(ramp(1))
    next(blocks)
    blocks.close()
    assert module.streams[0].closed


def test_the_stand_in_is_called_as_the_library_is():
    try:
        import sounddevice
    except (ImportError, OSError) as error:
        pytest.skip(f"sounddevice cannot be imported: {error}")
    for name in ("query_devices", "check_input_settings"):
        real = inspect.signature(getattr(sounddevice, name)).parameters
        assert list(inspect.signature(getattr(SoundDevice(), name)).parameters) == list(real)
    real = inspect.signature(sounddevice.InputStream).parameters
    assert list(inspect.signature(InputStream).parameters) == list(real)
    for name in ("start", "close"):
        real = inspect.signature(getattr(sounddevice.InputStream, name)).parameters
        assert list(inspect.signature(getattr(InputStream, name)).parameters) == list(real)
    assert isinstance(sounddevice.InputStream.active, property)
    assert issubclass(sounddevice.PortAudioError, Exception)
