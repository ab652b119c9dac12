"""Sound cards through PortAudio: what is there, and which one is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from musetalk_cli.errors import InputError, MuseTalkError, OutputError, first_line

LIST_HINT = "`musetalk realtime --list-devices` shows what is there."


@dataclass(frozen=True, slots=True)
class Direction:
    """One of the two ways that sound takes through a card.

    Attributes:
        noun: What a device is called that sound takes this way through.
        kind: What PortAudio calls the way.
        option: What a device is chosen with.
        otherwise: What else can be done where there is no device.
        error: What is raised where one cannot be had.
    """

    noun: str
    kind: str
    option: str
    otherwise: str
    error: type[MuseTalkError]

    @property
    def title(self) -> str:
        """All of its devices."""
        return f"{self.noun.capitalize()}s"


MICROPHONE = Direction(
    "microphone", "input", "--mic", "Pass --mic DEVICE, --audio FILE or --listen.", InputError
)
LOUDSPEAKER = Direction("loudspeaker", "output", "--speaker", "Run it without --speaker.", OutputError)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that sound can be recorded or played with.

    Attributes:
        index: Its number.
        name: Its name.
        channels: The most channels it has.
        sample_rate: Samples per second it is used with where nothing else is asked for.
        is_default: True for the one that is used where none is chosen.
    """

    index: int
    name: str
    channels: int
    sample_rate: int
    is_default: bool


def list_devices(direction: Direction) -> list[Device]:
    """The devices that sound takes this way through.

    Raises:
        MuseTalkError: sounddevice or PortAudio is missing, or cannot say.
    """
    sounddevice = load(direction)
    try:
        default = sounddevice.query_devices(kind=direction.kind)["index"]
    except (sounddevice.PortAudioError, ValueError):
        default = None
    try:
        found = sounddevice.query_devices()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise direction.error(f"{direction.title} cannot be listed: {first_line(error)}.") from error
    channels = f"max_{direction.kind}_channels"
    return [
        Device(
            info["index"],
            info["name"],
            info[channels],
            round(info["default_samplerate"]),
            info["index"] == default,
        )
        for info in found
        if info[channels] > 0
    ]


def find_device(wanted: str | None, direction: Direction) -> Device:
    """The device that is meant.

    Args:
        wanted: Its number, its name or part of it; None is the default one.
        direction: What it is for.

    Raises:
        MuseTalkError: There is none, or more than one, or nobody can say.
    """
    devices, noun, option = list_devices(direction), direction.noun, direction.option
    if not devices:
        raise direction.error(f"There is no {noun}.", direction.otherwise)
    if wanted is None:
        fitting = [device for device in devices if device.is_default]
        if not fitting:
            raise direction.error(f"No {noun} is the default one.", f"Pass {option} DEVICE; {LIST_HINT}")
    elif wanted.isascii() and wanted.isdigit():
        fitting = [device for device in devices if device.index == int(wanted)]
    else:
        name = wanted.casefold()
        fitting = [device for device in devices if name in device.name.casefold()]
        fitting = [device for device in fitting if device.name.casefold() == name] or fitting
    if not fitting:
        raise direction.error(f"{option} {wanted} is no {noun}.", LIST_HINT)
    if len(fitting) > 1:
        numbers = ", ".join(str(device.index) for device in fitting)
        raise direction.error(
            f"{option} {wanted} fits more than one {noun}: {numbers}.", "Pass the number of one."
        )
    return fitting[0]


def usable_channels(device: Device, direction: Direction, wanted: tuple[int, ...]) -> int:
    """The first of the wanted counts of channels that a device can be used with, at its own rate.

    Raises:
        MuseTalkError: It can be used with none of them.
    """
    sounddevice = load(direction)
    said: Exception = ValueError("it has no channels")
    check = getattr(sounddevice, f"check_{direction.kind}_settings")
    for channels in wanted:
        if channels > device.channels:
            continue
        try:
            check(device=device.index, channels=channels, dtype="float32", samplerate=device.sample_rate)
        except (sounddevice.PortAudioError, ValueError) as error:
            said = error
        else:
            return channels
    raise unusable(device, direction, said)


def unusable(device: Device, direction: Direction, error: Exception) -> MuseTalkError:
    """What is said of a device that is there and cannot be used, since PortAudio refuses it."""
    return direction.error(
        f"The {direction.noun} {device.name} cannot be used: {first_line(error)}.", LIST_HINT
    )


def ended(device: Device, direction: Direction) -> MuseTalkError:
    """What is said of a device that ended by itself."""
    return direction.error(
        f"The {direction.noun} {device.name} ended by itself.",
        f"It was unplugged, or its sound server ended; {LIST_HINT}",
    )


def load(direction: Direction) -> Any:  # noqa: ANN401 - it has no types
    """The module sounddevice.

    Raises:
        MuseTalkError: It or PortAudio is missing, or cannot be started.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise direction.error(
            f"A {direction.noun} needs sounddevice, which cannot be imported: {first_line(error)}.",
            "Install it with: pip install 'musetalk-cli[sound]'",
        ) from error
    except OSError as error:
        raise direction.error(
            f"A {direction.noun} needs PortAudio, which is not on this system: {first_line(error)}.",
            "Install the system's package, libportaudio2 on Debian and Ubuntu, portaudio elsewhere.",
        ) from error
    except Exception as error:
        raise direction.error(
            f"A {direction.noun} needs PortAudio, which cannot be started: {first_line(error)}."
        ) from error
    return sounddevice
