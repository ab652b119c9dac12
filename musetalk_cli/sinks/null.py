"""A sink for measuring: takes every frame and keeps none."""

from __future__ import annotations

from musetalk_cli.types import Frame, StreamFormat


class NullSink:
    """Counts what it is given.

    Attributes:
        name: What messages and reports call it.
        watched: False: nobody watches as the frames come.
        frames: Frames taken.
        samples: Samples of each channel taken.
    """

    def __init__(self) -> None:
        self.name = "null"
        self.watched = False
        self.frames = 0
        self.samples = 0

    def open(self, stream: StreamFormat) -> None:
        """Nothing to prepare."""

    def write(self, frame: Frame) -> None:
        """Count the frame and its sound."""
        self.frames += 1
        self.samples += len(frame.request.audio)

    def finish(self) -> None:
        """Nothing to complete."""

    def abort(self) -> None:
        """Nothing to undo."""
