"""The ffmpeg that the package carries, and what it says when it fails."""

from __future__ import annotations

import errno
import functools
import math
import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from musetalk_cli.errors import MuseTalkError

_TAG = re.compile(r"^(\[[^\]]*\]\s*)+")
_UNTOLD = re.compile(r"^(\[[^\]]*\]\s*)*\[(info|warning)\]")
_OPENING = re.compile(r"^Error opening (input|output)( files?)?\b:?\s*", re.IGNORECASE)
_LARGE = re.compile(r"\[.*\] Picture size (\d+)x(\d+) (?:exceeds specified max pixel count|is invalid)")
_NOISE = re.compile(
    r"conversion failed|exiting normally|task finished with error|terminating thread|nothing was written"
    r"|error parsing options|failed to set value|to ignore this|error (while )?closing|^\s*$",
    re.IGNORECASE,
)

_DURATION = re.compile(
    r"^(?:\[info\])?\s+Duration: (\d+):(\d\d):(\d\d\.\d+)(?:, start: (-?[\d.]+))?", re.MULTILINE
)


@functools.cache
def executable() -> str:
    """Path of the bundled ffmpeg.

    Raises:
        MuseTalkError: The package that carries it has none for this system.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MuseTalkError(
            "No ffmpeg for this system in imageio-ffmpeg.",
            "Install ffmpeg and set IMAGEIO_FFMPEG_EXE to its path.",
        ) from error


@functools.cache
def listed(what: str) -> frozenset[str]:
    """Names that it lists: of its `-filters`, `-decoders`, `-encoders` or `-demuxers`.

    Raises:
        MuseTalkError: It cannot be started.
    """
    process = start([what], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    lines = process.communicate()[0].decode("utf-8", "replace").splitlines()
    return frozenset(parts[1] for line in lines if len(parts := line.split()) > 1)


def start(arguments: Sequence[str], **pipes: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - as subprocess takes them
    """Start ffmpeg out of reach of the terminal's Ctrl-C; both are ended by whoever started it.

    Raises:
        MuseTalkError: It cannot be started.
    """
    try:
        return subprocess.Popen(
            [executable(), "-nostdin", "-hide_banner", *arguments], start_new_session=True, **pipes
        )
    except OSError as error:
        raise MuseTalkError(
            f"ffmpeg cannot be started from {executable()}: {error.strerror}.",
            "Check the environment variable IMAGEIO_FFMPEG_EXE.",
        ) from error


def file_url(path: Path) -> str:
    """A path as ffmpeg reads it, so that no name is taken for an option or a protocol."""
    return f"file:{path}"


def declared_length(text: str) -> tuple[Fraction, Fraction] | None:
    """How long an input is, and where its time stamps start, both in seconds, as ffmpeg's messages say.

    None where they give no length. Metadata of the file is written otherwise, and not taken for it.
    """
    found = _DURATION.search(text)
    if found is None:
        return None
    hours, minutes, seconds, start = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds), Fraction(start or 0)


def pixel_bound(pixels: int) -> list[str]:
    """Options for an input whose pictures have so many pixels at most: no others are decoded.

    Codecs decode whole blocks, and ask for memory at the edges: an eighth more is let through.
    """
    return ["-max_pixels", str(pixels + pixels // 8)]


def refused_size(lines: Sequence[str]) -> tuple[int, int]:
    """Columns and rows of the largest picture that was not decoded for its size, told by messages; else 0."""
    sizes = [(int(found[1]), int(found[2])) for line in lines if (found := _LARGE.match(line))]
    return max(sizes, key=math.prod, default=(0, 0))


def lacked_memory(code: int, lines: Sequence[str]) -> bool:
    """True where it ended for want of memory, told by its exit code and messages.

    The system kills a process where there is none left, and starts no thread where a limit is reached.
    """
    said = (os.strerror(errno.ENOMEM), f"pthread_create() failed: {os.strerror(errno.EAGAIN)}")
    return code == -signal.SIGKILL or (code != 0 and any(words in line for line in lines for words in said))


class Messages:
    """Reads what a running ffmpeg writes to its standard error; keeps the first and the last lines.

    Args:
        stream: The process's standard error.
        keep: How many lines are kept of each.
    """

    def __init__(self, stream: IO[bytes], keep: int = 200) -> None:
        self._keep = keep
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=keep)
        self._stream = stream
        self._thread = threading.Thread(target=self._read, name="ffmpeg-messages", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream:
            for line in self._stream:
                kept = self._first if len(self._first) < self._keep else self._last
                kept.append(line.decode("utf-8", "replace").rstrip())

    def lines(self) -> list[str]:
        """Everything kept, once the process has ended."""
        self._thread.join()
        return [*self._first, *self._last]

    def reason(self) -> str:
        """The last line that says why the process failed, without ffmpeg's tags."""
        opening = ""
        for line in reversed(self.lines()):
            text = _TAG.sub("", line).strip().rstrip(".")
            if not text or _NOISE.search(text) or _UNTOLD.match(line):
                continue
            if not _OPENING.match(text):
                return text
            opening = opening or _OPENING.sub("", text)
        return opening or "ffmpeg gave no reason"
