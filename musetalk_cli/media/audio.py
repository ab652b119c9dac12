"""Sound in: any format ffmpeg reads, as float32 blocks at its own rate and channels."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.segments import Segment, find_segments
from musetalk_cli.media.sound_decoder import PLAYLISTS, SoundDecoder
from musetalk_cli.types import Samples

log = logging.getLogger(__name__)

_LOUDEST = float(1 << 31)
"""Beyond full scale by more than the largest integer that anybody stores as a sample."""


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
    """Decodes a sound file as a stream, on its own time line.

    What has no sound between two parts, by their time stamps, is silence; where parts overlap, the second
    loses its beginning. A video's sound begins when it does after the picture. Recordings that were joined by
    joining their files come one after the other, at the rate and with the channels of the first.

    Args:
        path: Any file with an audio stream.

    Attributes:
        sample_rate: Samples per second, as in the file.
        channels: Channels, as in the file.
        missing_bytes: What the header of a WAV promises beyond the end of the file.

    Raises:
        InputError: The file is missing, empty, or holds no sound.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = _segments(path)
        self.missing_bytes = sum(segment.missing for segment in self._waiting)
        whole = len(self._waiting) == 1
        self._decoder = SoundDecoder(path, self._waiting.pop(0), whole=whole, form=None)
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def blocks(self, samples: int) -> Iterator[Samples]:
        """Yield float32 `[n, channels]` with `n == samples`, except for the last block.

        Raises:
            InputError: A sample is not finite or absurdly large, or the file is damaged or cut off.
        """
        width = self.channels * 4
        done = before = 0
        while True:
            data = self._decoder.read(samples * width)
            while len(data) < samples * width:
                here = done + len(data) // width
                self._decoder.check_end(here - before)
                before = here
                if not self._waiting:
                    break
                self._decoder.close()
                form = (self.sample_rate, self.channels)
                self._decoder = SoundDecoder(self._path, self._waiting.pop(0), whole=False, form=form)
                data += self._decoder.read(samples * width - len(data))
            if not data:
                break
            block = np.frombuffer(data, dtype="<f4").reshape(-1, self.channels)
            self._check(block, done)
            done += len(block)
            yield block
            if len(block) < samples:
                break
        if not done:
            raise InputError(f"{self._path} holds no samples.", "Record or export the sound again.")

    def _check(self, block: Samples, first: int) -> None:
        usable = (np.abs(block) <= _LOUDEST).all(axis=1)
        if usable.all():
            return
        place = int(np.argmin(usable))
        value = block[place][~(np.abs(block[place]) <= _LOUDEST)][0]
        what = f"of {value:.3g}" if np.isfinite(value) else "that is not a finite number"
        raise InputError(
            f"{self._path} has a sample {what} at {(first + place) / self.sample_rate:.3f} s.",
            "Export the sound again; full scale is 1.",
        )

    def close(self) -> None:
        """End the decoder; safe to call twice."""
        self._waiting.clear()
        self._decoder.close()


def probe_sound(path: Path) -> SoundInfo:
    """Decode a sound once from end to end, keeping nothing: its format, its length, and that it is whole.

    Raises:
        InputError: The file is missing, empty, damaged, cut off, or holds no usable sound.
    """
    with SoundReader(path) as reader:
        samples = sum(len(block) for block in reader.blocks(reader.sample_rate))
        if reader.missing_bytes:
            log.warning(
                "The header of %s promises %d bytes more than there are: it is spoken to its end at %.2f s.",
                path, reader.missing_bytes, samples / reader.sample_rate,
            )  # fmt: skip
        return SoundInfo(reader.sample_rate, reader.channels, samples)


def declared_seconds(path: Path) -> float | None:
    """How long a file says it is, without decoding it; None where it does not say, or cannot be read."""
    formats = ",".join(sorted(ffmpeg.listed("-demuxers") - PLAYLISTS))
    bounds = ["-protocol_whitelist", "file", "-format_whitelist", formats]
    process = ffmpeg.start(
        [*bounds, "-i", ffmpeg.file_url(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None  # noqa: S101 - says to the type checker what PIPE means
    messages = ffmpeg.Messages(process.stderr)
    process.wait()
    length = ffmpeg.declared_length("\n".join(messages.lines()))
    return None if length is None else float(length[0])


def _segments(path: Path) -> list[Segment]:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not a sound.", "Pass one sound file.")
        if not path.exists():
            raise InputError(f"There is no sound at {path}.", "Check the path.")
        if not path.is_file():
            raise InputError(f"{path} is a pipe or a device, not a file.", "Pass one sound file.")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty.", "Record or export the sound again.")
        return find_segments(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
