"""A video file with the original sound."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from musetalk_cli.errors import OutputError
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.sinks.place import check_file, partial_name
from musetalk_cli.types import Frame, StreamFormat


class VideoSink:
    """H.264 and AAC in an MP4, written beside its final name and renamed when complete.

    Args:
        path: The result; replaced if it is there.

    Attributes:
        name: What messages and reports call it.
        live: False: nobody watches as the frames come.

    Raises:
        OutputError: It cannot be written there.
    """

    def __init__(self, path: Path) -> None:
        check_file(path, "--output")
        self.name = str(path)
        self.live = False
        self._path = path
        self._partial = partial_name(path.parent)
        self._encoder: VideoEncoder | None = None

    def open(self, stream: StreamFormat) -> None:
        """Start the encoder."""
        self._encoder = VideoEncoder(self._partial, stream)

    def write(self, frame: Frame) -> None:
        """Encode one frame and its sound.

        Raises:
            OutputError: The encoder has died.
        """
        if self._encoder is not None:
            self._encoder.write(frame.image, frame.request.audio)

    def finish(self) -> None:
        """Complete the file and give it its name.

        Raises:
            OutputError: The encoder failed, or the file cannot be renamed.
        """
        if self._encoder is None:
            return
        self._encoder.finish()
        try:
            self._partial.replace(self._path)
        except OSError as error:
            raise OutputError(f"--output {self._path} cannot be written: {error.strerror}.") from error

    def abort(self) -> None:
        """Remove what was written."""
        if self._encoder is not None:
            self._encoder.abort()
        with suppress(OSError):
            self._partial.unlink()
