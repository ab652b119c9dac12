"""A video file with the original sound."""

from __future__ import annotations

from pathlib import Path

from musetalk_cli.errors import OutputError
from musetalk_cli.media.containers import FILES
from musetalk_cli.sinks.checks import Partial, check_file, refused, removed
from musetalk_cli.sinks.encoded import EncodedSink, container_of
from musetalk_cli.types import StreamFormat


class VideoSink(EncodedSink):
    """A video in the format of its suffix, written beside its final name and renamed when complete.

    Args:
        path: The result; replaced if it is there.

    Raises:
        OutputError: It cannot be written there, or its suffix is none of `FILES`.
    """

    def __init__(self, path: Path) -> None:
        check_file(path, "--output")
        self._path = path
        self._partial = Partial(path.parent)
        container = container_of(path, FILES)
        super().__init__(self._partial.path, container, str(path), told=f"--output {path}", watched=False)

    def open(self, stream: StreamFormat) -> None:
        """Make the file and start the encoder.

        Raises:
            OutputError: The file cannot be made.
        """
        try:
            self._partial.make()
        except OSError as error:
            raise OutputError(f"{self._told} cannot be written: {error.strerror}.") from error
        super().open(stream)

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            OutputError: The encoder failed, or the file cannot be renamed.
        """
        if self._encoder is None:
            return
        try:
            super().finish()
            self._partial.path.replace(self._path)
        except OutputError as error:
            raise error if self._partial.path.exists() else removed(self._told) from None
        except OSError as error:
            raise refused(self._told, error, self._partial.path) from error
        self._partial.release()

    def abort(self) -> None:
        """Remove what was written."""
        super().abort()
        self._partial.remove()
