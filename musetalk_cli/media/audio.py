"""Sound in: any format ffmpeg reads, as float32 blocks at its own rate and channels."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.types import Samples

_DURATION = re.compile(r"^\[info\]\s+Duration: (\d+):(\d\d):(\d\d\.\d+)", re.MULTILINE)
_INPUT = re.compile(r"^\[info\] Input #0, (\S+), from ", re.MULTILINE)
_UNDECODED = re.compile(
    r"Error submitting packet to decoder|Decoding error:|corrupt input packet", re.IGNORECASE
)
_PLAYLISTS = {"concat", "concatf", "dash", "hls", "imf", "tedcaptions"}
_UNKNOWN_SIZE = 0x7FFF_F000
"""Sizes from here on are what ffmpeg and SoX write where they cannot know the length."""
_EXACT = {"wav", "flac", "aiff", "w64"}
"""Containers whose length is exact to the sample."""
_FORMATS = "WAV, FLAC, MP3, M4A, OGG and most others work."


@dataclass(frozen=True, slots=True)
class SoundInfo:
    """What a sound file holds.

    Attributes:
        sample_rate: Samples per second.
        channels: Channels.
        samples: Samples of each channel.
    """

    sample_rate: int
    channels: int
    samples: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.sample_rate


class SoundReader:
    """Decodes a sound file as a stream.

    Args:
        path: Any file with an audio stream.

    Attributes:
        sample_rate: Samples per second, as in the file.
        channels: Channels, as in the file.

    Raises:
        InputError: The file is missing, empty, or holds no sound.
    """

    def __init__(self, path: Path) -> None:
        _check_file(path)
        self._path = path
        command = ["-v", "level+info", "-nostats", "-protocol_whitelist", "file,pipe"]
        command += ["-i", ffmpeg.file_url(path), "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1"]
        self._process = ffmpeg.start(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._process.stdout is not None  # noqa: S101 - says to the type checker what PIPE means
        assert self._process.stderr is not None  # noqa: S101
        self._stdout = self._process.stdout
        self._messages = ffmpeg.Messages(self._process.stderr)
        header = _read_wav_header(self._stdout)
        if header is None:
            self._process.wait()
            reason = self._messages.reason()
            self.close()
            if any("matches no streams" in line for line in self._messages.lines()):
                raise InputError(
                    f"{path} holds no sound.", "Pass a recording or a video with an audio track."
                )
            raise InputError(f"{path} is not a sound that can be read: {reason}.", _FORMATS)
        self.sample_rate, self.channels = header

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def blocks(self, samples: int) -> Iterator[Samples]:
        """Yield float32 `[n, channels]` with `n == samples`, except for the last block.

        Raises:
            InputError: A sample is not finite, or the file is damaged or cut off.
        """
        size = samples * self.channels * 4
        done = 0
        while data := self._stdout.read(size):
            whole = len(data) - len(data) % (self.channels * 4)
            block = np.frombuffer(data[:whole], dtype="<f4").reshape(-1, self.channels)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                second = (done + int(np.argmin(finite))) / self.sample_rate
                raise InputError(
                    f"{self._path} has a sample that is not a finite number at {second:.3f} s.",
                    "Export the sound again.",
                )
            done += len(block)
            yield block
        self._check_end(done)

    def _check_end(self, samples: int) -> None:
        code = self._process.wait()
        text = "\n".join(self._messages.lines())
        found = _INPUT.search(text)
        container = found.group(1) if found else ""
        if container in _PLAYLISTS:
            raise InputError(f"{self._path} is a playlist, not a sound.", "Pass one sound file.")
        if samples == 0:
            raise InputError(f"{self._path} holds no samples.", "Record or export the sound again.")
        seconds = samples / self.sample_rate
        declared = _declared_seconds(text)
        whole = _UNDECODED.search(text) is None or (container == "wav" and _open_ended(self._path))
        tolerance = 0.02 if container in _EXACT or not whole else max(0.5, 0.02 * seconds)
        if code != 0 or declared - seconds > tolerance or not (whole or declared):
            raise InputError(
                f"{self._path} is damaged or cut off after {seconds:.2f} s.",
                "Copy or export the sound again.",
            )

    def close(self) -> None:
        """End the decoder; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._stdout.close()
        self._messages.lines()


def probe_sound(path: Path) -> SoundInfo:
    """Decode a sound once from end to end, keeping nothing: its format, its length, and that it is whole.

    Raises:
        InputError: The file is missing, empty, damaged, cut off, or holds no usable sound.
    """
    with SoundReader(path) as reader:
        samples = sum(len(block) for block in reader.blocks(reader.sample_rate))
        return SoundInfo(reader.sample_rate, reader.channels, samples)


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not a sound.", "Pass one sound file.")
        if not path.exists():
            raise InputError(f"There is no sound at {path}.", "Check the path.")
        if not path.is_file():
            raise InputError(f"{path} is a pipe or a device, not a file.", "Pass one sound file.")
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if not first:
        raise InputError(f"{path} is empty.", "Record or export the sound again.")


def _read_wav_header(stream: IO[bytes]) -> tuple[int, int] | None:
    """Sample rate and channels, with the stream left at the first sample; None where there is no header."""
    if len(riff := stream.read(12)) < 12 or riff[8:] != b"WAVE":
        return None
    rate = channels = 0
    while len(head := stream.read(8)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            return (rate, channels) if rate and channels else None
        body = stream.read(size + size % 2)
        if name == b"fmt ":
            channels, rate = struct.unpack("<HI", body[2:8])
    return None


def _open_ended(path: Path) -> bool:
    """True for a WAV that was written to a pipe: it states no length, so its end is no cut."""
    with path.open("rb") as file:
        head = file.read(4096)
    at = head.find(b"data", 12) + 4
    size = head[at : at + 4]
    return at >= 16 and len(size) == 4 and struct.unpack("<I", size)[0] >= _UNKNOWN_SIZE


def _declared_seconds(text: str) -> float:
    """Length the container claims; 0 where it claims none that concerns the sound alone."""
    found = _DURATION.search(text)
    if found is None or "Estimating duration from bitrate" in text:
        return 0.0
    source = text.partition("Output #0")[0]
    if re.search(r"Stream #0.*: Video: (?!.*attached pic)", source):
        return 0.0
    hours, minutes, seconds = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
