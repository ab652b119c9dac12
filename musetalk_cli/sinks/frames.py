"""A folder of lossless pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import cv2

from musetalk_cli.errors import OutputError
from musetalk_cli.sinks.place import check_parent, check_writable, partial_name
from musetalk_cli.types import Frame, StreamFormat

_NUMBERED = re.compile(r"\d{8}\.png")


class FramesSink:
    """PNG files named `%08d.png`, collected under a hidden name and moved into the folder when complete.

    A folder that is there keeps its other files; the numbered pictures in it are replaced as a whole.

    Args:
        folder: Where the pictures go; made if it is not there.

    Attributes:
        name: What messages and reports call it.
        live: False: nobody watches as the frames come.

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
        self.live = False
        self._folder = folder
        self._partial = partial_name(folder if folder.is_dir() else folder.parent)
        self._count = 0

    def open(self, stream: StreamFormat) -> None:  # noqa: ARG002 - a picture states its own size
        """Make the folder the pictures are collected in.

        Raises:
            OutputError: It cannot be made.
        """
        try:
            self._partial.mkdir()
        except OSError as error:
            raise self._refused(error, "Choose another folder.") from error

    def write(self, frame: Frame) -> None:
        """Write one picture.

        Raises:
            OutputError: The disk refuses it.
        """
        _, data = cv2.imencode(".png", frame.image)
        try:
            (self._partial / f"{self._count:08d}.png").write_bytes(data.tobytes())
        except OSError as error:
            raise self._refused(error, "Check the free space of the disk.") from error
        self._count += 1

    def finish(self) -> None:
        """Give the folder its name, or move the pictures into one that is there, one by one.

        Raises:
            OutputError: The folder refuses them.
        """
        try:
            if not self._folder.exists():
                self._partial.rename(self._folder)
                return
            for old in self._folder.iterdir():
                if _NUMBERED.fullmatch(old.name):
                    old.unlink()
            for picture in self._partial.iterdir():
                picture.rename(self._folder / picture.name)
            self._partial.rmdir()
        except OSError as error:
            raise self._refused(error) from error

    def abort(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def _refused(self, error: OSError, hint: str | None = None) -> OutputError:
        return OutputError(f"--frames-dir {self._folder} cannot be written: {error.strerror}.", hint)
