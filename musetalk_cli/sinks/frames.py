"""A folder of lossless pictures."""

from __future__ import annotations

import re
from pathlib import Path

import cv2

from musetalk_cli.errors import OutputError
from musetalk_cli.sinks.checks import Partial, check_parent, check_writable, refused
from musetalk_cli.types import Frame, StreamFormat

_NUMBERED = re.compile(r"\d{8}\.png")


class FramesSink:
    """PNG files named `%08d.png`, collected under a hidden name and moved into the folder when complete.

    A folder that is there keeps its other files; the numbered pictures in it are replaced as a whole.

    Args:
        folder: Where the pictures go; made if it is not there.

    Attributes:
        name: What messages and reports call it.
        watched: False: nobody watches as the frames come.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        check_parent(folder, "--frames-dir")
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"--frames-dir {folder} is a file.", "Name a folder.")
        if folder.is_dir():
            check_writable(folder, f"--frames-dir {folder}")
        self.name = str(folder)
        self.watched = False
        self._folder = folder
        self._told = f"--frames-dir {folder}"
        self._partial = Partial(folder if folder.is_dir() else folder.parent)
        self._count = 0

    def open(self, stream: StreamFormat) -> None:  # noqa: ARG002 - a picture states its own size
        """Make the folder the pictures are collected in.

        Raises:
            OutputError: It cannot be made.
        """
        try:
            self._partial.make(folder=True)
        except OSError as error:
            raise OutputError(
                f"{self._told} cannot be written: {error.strerror}.", "Choose another folder."
            ) from error

    def write(self, frame: Frame) -> None:
        """Write one picture.

        Raises:
            OutputError: The disk refuses it.
        """
        _, data = cv2.imencode(".png", frame.image)
        try:
            (self._partial.path / f"{self._count:08d}.png").write_bytes(data.tobytes())
        except OSError as error:
            raise refused(self._told, error, self._partial.path) from error
        self._count += 1

    def finish(self) -> None:
        """Give the folder its name, or move the pictures into one that is there, one by one.

        Raises:
            OutputError: The folder refuses them.
        """
        try:
            if not self._folder.exists():
                self._partial.path.rename(self._folder)
                self._partial.release()
                return
            # the old ones first: a shorter run must not leave the end of a longer one behind its own
            for old in self._folder.iterdir():
                if _NUMBERED.fullmatch(old.name):
                    old.unlink()
            for picture in self._partial.path.iterdir():
                picture.rename(self._folder / picture.name)
        except OSError as error:
            raise refused(self._told, error, self._partial.path) from error
        self._partial.remove()

    def abort(self) -> None:
        """Remove what was written."""
        self._partial.remove()
