"""Which device is meant; for microphones `test_microphone` says the rest."""

import sys

import pytest
from soundcards import BUILT_IN, MIX, SPEAKER, SoundDevice

from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.media.soundcards import (
    LOUDSPEAKER,
    MICROPHONE,
    Device,
    ended,
    find_device,
    list_devices,
    usable_channels,
)


@pytest.fixture
def module(monkeypatch):
    module = SoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_loudspeakers_are_those_with_outputs(module):
    assert list_devices(LOUDSPEAKER) == [
        Device(1, MIX, 32, 48000, is_default=False),
        Device(2, SPEAKER, 8, 48000, is_default=True),
        Device(3, BUILT_IN, 1, 16000, is_default=False),
    ]


@pytest.mark.parametrize(
    ("direction", "wanted", "index"),
    [(LOUDSPEAKER, None, 2), (LOUDSPEAKER, "hdmi", 2), (LOUDSPEAKER, "usb", 3), (MICROPHONE, None, 1)],
)
def test_each_way_has_its_own_default_and_names(module, direction, wanted, index):
    assert find_device(wanted, direction).index == index


@pytest.mark.parametrize(
    ("wanted", "message"),
    [("0", "--speaker 0 is no loudspeaker"), ("u", r"--speaker u fits more than one loudspeaker: 1, 3\.")],
)
def test_a_loudspeaker_that_is_not_meant_clearly_is_refused(module, wanted, message):
    with pytest.raises(OutputError, match=message):
        find_device(wanted, LOUDSPEAKER)


def test_without_a_default_loudspeaker_one_must_be_named(module):
    module.default.device[1] = -1
    with pytest.raises(OutputError, match="No loudspeaker is the default one") as caught:
        find_device(None, LOUDSPEAKER)
    assert caught.value.hint.startswith("Pass --speaker DEVICE;")


def test_without_any_loudspeaker_the_hint_leaves_it_out(module):
    module.infos = module.infos[:1]
    with pytest.raises(OutputError, match="There is no loudspeaker") as caught:
        find_device(None, LOUDSPEAKER)
    assert caught.value.hint == "Run it without --speaker."


def test_the_first_count_of_channels_that_a_device_takes_is_used(module):
    pulse, one = find_device("1", LOUDSPEAKER), find_device("3", LOUDSPEAKER)
    assert usable_channels(pulse, LOUDSPEAKER, (2, 1)) == 2
    assert usable_channels(one, LOUDSPEAKER, (2, 1)) == 1
    module.mono = False
    with pytest.raises(OutputError, match=f"The loudspeaker {BUILT_IN} cannot be used: Invalid number"):
        usable_channels(one, LOUDSPEAKER, (2, 1))


def test_an_end_is_of_the_kind_of_its_direction():
    device = Device(1, MIX, 2, 48000, is_default=True)
    assert isinstance(ended(device, LOUDSPEAKER), OutputError)
    assert isinstance(ended(device, MICROPHONE), InputError)
