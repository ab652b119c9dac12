"""A video file with the original sound."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from musetalk_cli.errors import OutputError
from musetalk_cli.media.encode import FILES
from musetalk_cli.sinks.encoded import EncodedSink, container_of
from musetalk_cli.sinks.place import check_file, partial_name


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
        self._partial = partial_name(path.parent)
        container = container_of(path, FILES)
        super().__init__(self._partial, container, str(path), told=f"--output {path}", live=False)

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            OutputError: The encoder failed, or the file cannot be renamed.
        """
        if self._encoder is None:
            return
        super().finish()
        try:
            self._partial.replace(self._path)
        except OSError as error:
            raise OutputError(f"--output {self._path} cannot be written: {error.strerror}.") from error

    def abort(self) -> None:
        """Remove what was written."""
        super().abort()
        with suppress(OSError):
            self._partial.unlink()
