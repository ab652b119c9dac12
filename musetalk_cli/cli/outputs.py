"""Sinks from options, and what is shown on them of how the run goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.errors import OutputError

if TYPE_CHECKING:
    from musetalk_cli.live.control import ControlHandle
    from musetalk_cli.live.observe import Snapshot
    from musetalk_cli.types import Sink


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


def make_sinks(outputs: Sequence[str], screen: Screen | None, *, virtual_camera: bool) -> list[Sink]:
    """The sinks that were asked for; none where no frame is to be kept.

    Args:
        outputs: Values of `--output`.
        screen: A window is wanted, with this on it; None is no window.
        virtual_camera: A virtual camera is wanted.

    Raises:
        MuseTalkError: One of them cannot be had.
    """
    from musetalk_cli import sinks

    made = [sinks.parse_output(text) for text in outputs]
    if screen is not None:
        made.append(sinks.DisplaySink(screen.overlay, screen.handle.interrupt, screen.handle.end))
    if virtual_camera:
        made.append(sinks.VirtualCameraSink())
    return made
