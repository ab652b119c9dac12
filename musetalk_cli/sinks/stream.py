"""Sinks that are read while they are written: a recording, a pipe to a player, a server."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from musetalk_cli.errors import OutputError
from musetalk_cli.media.containers import FLV, MATROSKA, MPEGTS, RECORDINGS, can_send
from musetalk_cli.sinks.checks import check_file, removed
from musetalk_cli.sinks.encoded import EncodedSink, container_of
from musetalk_cli.types import Frame, StreamFormat

SCHEMES = {"rtmp": FLV, "rtmps": FLV, "srt": MPEGTS}
"""What a server may be reached by, and what it is sent."""


class RecordingSink(EncodedSink):
    """A video in the format of its suffix and under its name, playable while it grows and whatever ends it.

    The file is made, or an older one replaced, with the first frame.

    Args:
        path: The result.

    Raises:
        OutputError: It cannot be written there, or its suffix is none of `RECORDINGS`.
    """

    def __init__(self, path: Path) -> None:
        check_file(path, "--output")
        container = container_of(path, RECORDINGS)
        super().__init__(path, container, str(path), told=f"--output {path}", watched=False)
        self._path = path
        self._stream: StreamFormat | None = None

    def open(self, stream: StreamFormat) -> None:
        """Remember the format; nothing is written yet."""
        self._stream = stream

    def write(self, frame: Frame) -> None:
        """Encode one frame and its sound.

        Raises:
            OutputError: The encoder has died; what it wrote before is kept.
        """
        if self._encoder is None and self._stream is not None:
            super().open(self._stream)
        super().write(frame)

    def finish(self) -> None:
        """Complete the recording.

        Raises:
            OutputError: The encoder failed, or the recording was removed while it was written.
        """
        try:
            super().finish()
        except OutputError as error:
            raise error if self._path.parent.is_dir() else removed(self._told) from None
        if self._encoder is not None and not self._path.exists():
            raise removed(self._told)

    def abort(self) -> None:
        """End the encoder and keep what was written; a file that holds nothing is removed."""
        if self._encoder is None:
            return
        with suppress(OutputError):
            self._encoder.finish()
        self._encoder.abort()
        with suppress(OSError):
            if self._path.stat().st_size == 0:
                self._path.unlink()


class PipeSink(EncodedSink):
    """Matroska for a player that reads a pipe: H.264 without delay, and the sound as it is.

    Args:
        descriptor: Where it goes; 1 is standard output. It stays the caller's.

    Raises:
        OutputError: It is closed, or a terminal.
    """

    def __init__(self, descriptor: int = 1) -> None:
        name = "standard output" if descriptor == 1 else f"descriptor {descriptor}"
        try:
            os.fstat(descriptor)
        except OSError as error:
            raise OutputError(f"{name.capitalize()} cannot be written: {error.strerror}.") from error
        if os.isatty(descriptor):
            raise OutputError(
                f"{name.capitalize()} is a terminal.", "Pipe it into a player: ... --output - | ffplay -"
            )
        super().__init__(descriptor, MATROSKA, name, told="--output -")


class NetworkSink(EncodedSink):
    """A stream to a server: FLV by RTMP, MPEG-TS by SRT.

    Messages name the scheme and the host of its URL and nothing else, since the rest may be a secret.

    Args:
        url: `rtmp://`, `rtmps://` or `srt://`, as the server's owner gives it.

    Raises:
        OutputError: It is no such URL, or this ffmpeg does not speak its protocol.
    """

    def __init__(self, url: str) -> None:
        scheme, host = _server(url)
        name = f"{scheme}://{host}"
        if not can_send(scheme):
            raise OutputError(
                f"This ffmpeg cannot send to {name}.", "Set IMAGEIO_FFMPEG_EXE to one that can, or unset it."
            )
        super().__init__(url, SCHEMES[scheme], name, told=f"--output {name}")


def _server(url: str) -> tuple[str, str]:
    """Scheme and host of a URL.

    Raises:
        OutputError: It is none that frames can be sent to.
    """
    hint = "Pass it as in rtmp://host/app/key or srt://host:port."
    scheme = url.partition("://")[0].lower()
    if scheme not in SCHEMES or "://" not in url:
        raise OutputError("--output is no rtmp://, rtmps:// or srt:// URL.", hint)
    if re.search(r"[\x00-\x20\x7f]", url):
        raise OutputError(f"--output {scheme}://... holds a space or a control character.", hint)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # which names what stands where the port should be
        raise OutputError(f"--output {scheme}://... has a host or a port that cannot be.", hint) from None
    if not host:
        raise OutputError(f"--output {scheme}://... names no host.", hint)
    if scheme == "srt" and port is None:
        raise OutputError(f"--output srt://{host} names no port.", hint)
    return scheme, f"[{host}]" if ":" in host else host
