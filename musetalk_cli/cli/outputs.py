"""Sinks from options, and what is shown on them of how the run goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.errors import OutputError

if TYPE_CHECKING:
    from musetalk_cli.clock import Clock
    from musetalk_cli.live.control import ControlHandle
    from musetalk_cli.live.observe import Snapshot
    from musetalk_cli.types import Sink


DEFAULT_DEVICE = "default"
"""What `--mic` and `--speaker` without a name stand for."""


@dataclass(frozen=True)
class Wanted:
    """Where the frames go, as it was asked for.

    Attributes:
        outputs: Values of `--output`.
        display: A window is wanted.
        speaker: A loudspeaker is wanted, by number or part of its name, or `DEFAULT_DEVICE`; None is none.
        virtual_camera: A virtual camera is wanted.
    """

    outputs: list[str]
    display: bool
    speaker: str | None
    virtual_camera: bool

    @property
    def nothing(self) -> bool:
        """True where no output was asked for."""
        return not (self.outputs or self.display or self.virtual_camera or self.speaker is not None)


class Screen:
    """What a window shows beside the face, and what its keys do.

    Args:
        handle: The stream that the keys act on.
    """

    def __init__(self, handle: ControlHandle) -> None:
        self.handle = handle
        self._latest: Snapshot | None = None

    def watching(self, other: Callable[[Snapshot], None]) -> Callable[[Snapshot], None]:
        """Take note of how the run goes, and pass it on."""

        def watch(snapshot: Snapshot) -> None:
            self._latest = snapshot
            other(snapshot)

        return watch

    def overlay(self) -> str:
        """Frames per second, delay and drops, in one line."""
        if self._latest is None:
            return ""
        return (
            f"{self._latest.fps:.1f} fps  {self._latest.mouth_to_eye_ms.p50:.0f} ms  "
            f"dropped {self._latest.dropped}"
        )


def check_names(outputs: Sequence[str], trace: Path | None, audio: str | None) -> None:
    """Refuse two results in one place, and one in place of the sound.

    Args:
        outputs: Values of `--output`.
        trace: Value of `--trace`.
        audio: Value of `--audio`.

    Raises:
        OutputError: Two of them are the same.
    """
    from musetalk_cli.sinks import check_not_input

    named = [("--output", text) for text in outputs if text != "null"]
    named += [] if trace is None else [("--trace", str(trace))]
    places: set[str] = set()
    for option, text in named:
        place = text if text == "-" else str(Path(text).resolve())
        if place in places:
            raise OutputError(f"{option} {text} is named twice.", "Give each result a place of its own.")
        places.add(place)
        if audio not in {None, "-"}:
            check_not_input(Path(text), Path(str(audio)), option)


def make_sinks(
    wanted: Wanted, screen: Screen, clock: Clock, *, is_recorded: bool
) -> tuple[list[Sink], str | None]:
    """The sinks that were asked for, or those that the machine has, and then a line that says so.

    Args:
        wanted: What was asked for.
        screen: What a window shows.
        clock: Where time comes from.
        is_recorded: The sound is a microphone's, which would hear a loudspeaker.

    Raises:
        MuseTalkError: One of them cannot be had.
    """
    from musetalk_cli import sinks

    if wanted.nothing:
        return _what_is_there(screen, clock, is_recorded=is_recorded)
    made = [sinks.parse_output(text) for text in wanted.outputs]
    if wanted.display:
        made.append(_window(screen))
    if wanted.virtual_camera:
        made.append(sinks.VirtualCameraSink())
    if wanted.speaker is not None:
        name = None if wanted.speaker == DEFAULT_DEVICE else wanted.speaker
        made.append(sinks.SpeakerSink(name, clock))
    return made, None


def _what_is_there(screen: Screen, clock: Clock, *, is_recorded: bool) -> tuple[list[Sink], str]:
    """A window and a loudspeaker, as far as the machine has them, and a line that says so."""
    from musetalk_cli import sinks

    made: list[Sink] = []
    told = []
    with suppress(OutputError):
        made.append(_window(screen))
        told.append("a window shows the frames")
    if not is_recorded:
        with suppress(OutputError):
            speaker = sinks.SpeakerSink(None, clock)
            made.append(speaker)
            told.append(f"the loudspeaker {speaker.device.name} plays their sound")
    return made, f"no output is named: {' and '.join(told) or 'nothing is shown or kept'}"


def _window(screen: Screen) -> Sink:
    from musetalk_cli import sinks

    return sinks.DisplaySink(screen.overlay, screen.handle.interrupt, screen.handle.end)
