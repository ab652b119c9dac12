"""What all sinks have in common that encode: an encoder that starts when the format is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from musetalk_cli.errors import OutputError
from musetalk_cli.media.containers import Container, missing_codec
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.types import Frame, StreamFormat


def container_of(path: Path, containers: Mapping[str, Container]) -> Container:
    """The container that the suffix of a file asks for, in whatever case.

    Raises:
        OutputError: There is none of that suffix, or this ffmpeg cannot write it.
    """
    container = containers.get(path.suffix.lower())
    if container is None:
        *first, last = containers
        known = f"{', '.join(first)} or {last}"
        what = f"would be {path.suffix}, which is not written" if path.suffix else "has no suffix"
        raise OutputError(f"--output {path} {what}.", f"Name a file that ends in {known}.")
    if (codec := missing_codec(container)) is not None:
        raise OutputError(
            f"--output {path} needs {codec}, which this ffmpeg has not.",
            "Set IMAGEIO_FFMPEG_EXE to one that has it, or unset it.",
        )
    return container


class EncodedSink:
    """Frames and their sound through an encoder.

    Args:
        destination: A file, a descriptor or a URL, as `VideoEncoder` takes it.
        container: What is written.
        name: What messages and reports call it.
        told: What errors of the encoder call it.
        watched: True where somebody watches as the frames come.

    Attributes:
        name: What messages and reports call it.
        watched: True where somebody watches as the frames come.
    """

    def __init__(
        self,
        destination: Path | int | str,
        container: Container,
        name: str,
        *,
        told: str,
        watched: bool = True,
    ) -> None:
        self.name = name
        self.watched = watched
        self._told = told
        self._destination = destination
        self._container = container
        self._encoder: VideoEncoder | None = None

    def open(self, stream: StreamFormat) -> None:
        """Start the encoder."""
        self._encoder = VideoEncoder(self._destination, stream, self._container, self._told)

    def write(self, frame: Frame) -> None:
        """Encode one frame and its sound.

        Raises:
            OutputError: The encoder has died, its reader went away, or nothing was taken for too long.
        """
        if self._encoder is not None:
            self._encoder.write(frame.image, frame.request.audio)

    def finish(self) -> None:
        """Send what is left, and the end.

        Raises:
            OutputError: As for `write`.
        """
        if self._encoder is not None:
            self._encoder.finish()

    def abort(self) -> None:
        """End at once; what was sent is sent."""
        if self._encoder is not None:
            self._encoder.abort()
