"""Sinks from options, and what is shown on them of how the run goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musetalk_cli.control import Remote
    from musetalk_cli.observe import Snapshot
    from musetalk_cli.types import Sink


class Screen:
    """What a window shows beside the face, and what its keys do.

    Args:
        remote: The stream that the keys act on.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
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


def make_sinks(
    outputs: Sequence[str], audio: str | None, screen: Screen | None, *, virtual_camera: bool
) -> list[Sink]:
    """The sinks that were asked for; none where no frame is to be kept.

    Args:
        outputs: Values of `--output`.
        audio: The sound, if it is a file, which no output may replace.
        screen: A window is wanted, with this on it; None is no window.
        virtual_camera: A virtual camera is wanted.

    Raises:
        MuseTalkError: One of them cannot be had.
    """
    from musetalk_cli import sinks

    made: list[Sink] = []
    for text in outputs:
        if audio not in {None, "-"}:
            sinks.check_not_input(Path(text), Path(str(audio)))
        made.append(sinks.parse_output(text))
    if screen is not None:
        made.append(sinks.DisplaySink(screen.overlay, screen.remote.interrupt, screen.remote.stop.set))
    if virtual_camera:
        made.append(sinks.VirtualCameraSink())
    return made
