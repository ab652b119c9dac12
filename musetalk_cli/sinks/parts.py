"""A video in parts: the pictures of each in a file of its own, and all of them joined with the whole sound.

Joining codes no picture again. Each part begins with a keyframe, and its frames depend on no other part.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from musetalk_cli.errors import OutputError
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.media.containers import FILES, MP4, Container
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.sinks.checks import Partial, check_file, check_not_input, refused
from musetalk_cli.sinks.encoded import EncodedSink, container_of
from musetalk_cli.types import StreamFormat

_MOST_UNITS = 1_000_000
"""Parts begin at whole microseconds. With a larger numerator of the frame rate that would not be exact."""
_SETUPS = (b"avcC", b"vpcC")
"""Boxes of an MP4 that hold what a decoder is told before the first picture."""
_LARGEST_BOX = 1 << 28


def joins_exactly(fps: Fraction) -> bool:
    """True for a frame rate at which joined frames have the time stamps of a video in one piece."""
    return fps.numerator < _MOST_UNITS


class PartSink(EncodedSink):
    """The pictures of a part, coded as those of the whole, in a file that only `join` reads.

    Args:
        path: The file; replaced if it is there.
        output: What the whole will be called: its suffix says how pictures are coded.
    """

    def __init__(self, path: Path, output: Path) -> None:
        coded = replace(container_of(output, FILES), sound="", muxer=MP4.muxer)
        self._path = path
        super().__init__(path, coded, str(output), told=f"A part of --output {output}", watched=False)

    def abort(self) -> None:
        """Remove what was written."""
        super().abort()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class CodedPart:
    """A part whose pictures are coded.

    Attributes:
        path: What `PartSink` wrote; all parts of a video are in one folder.
        frames: How many there are.
    """

    path: Path
    frames: int


def join(
    parts: Sequence[CodedPart],
    audio: Path,
    output: Path,
    fps: Fraction,
    told: Callable[[], None] = lambda: None,
) -> None:
    """Make a video of its parts and its sound, which is coded in one piece.

    Args:
        parts: All of them, in their order.
        audio: The whole sound.
        output: The result; replaced if it is there, once it is complete.
        fps: Frames per second, for which `joins_exactly` is true.
        told: Called now and then.

    Raises:
        InputError: The sound cannot be read.
        OutputError: The parts do not fit together, or the result cannot be written.
    """
    check_file(output, "--output")  # and remove what one that was killed here has left
    check_not_input(output, audio)
    _check_alike(parts, output)
    container = container_of(output, FILES)
    partial = Partial(output.parent)
    listed = parts[0].path.with_name("parts.txt")
    try:
        listed.write_text("\n".join(_listed(parts, fps)))
        partial.make()
        with closing(SoundReader(audio)) as reader:
            # the pictures bring their size
            stream = StreamFormat(0, 0, fps, reader.sample_rate, reader.channels)
            _write(partial.path, stream, container, listed, f"--output {output}", reader, told)
        partial.path.replace(output)
        partial.release()
    except OSError as error:
        raise refused(f"--output {output}", error, partial.path) from error
    finally:
        partial.remove()


def _write(
    path: Path,
    stream: StreamFormat,
    container: Container,
    listed: Path,
    name: str,
    reader: SoundReader,
    told: Callable[[], None],
) -> None:
    copied = replace(container, picture="-c:v copy")
    encoder = VideoEncoder(path, stream, copied, name, listed)
    try:
        for samples in reader.blocks(reader.sample_rate):
            encoder.write(None, samples)
            told()
        encoder.finish()
    except BaseException:
        encoder.abort()
        raise


def _listed(parts: Sequence[CodedPart], fps: Fraction) -> Iterator[str]:
    """A list of files for ffmpeg. Where each begins is rounded by itself, so no error adds up."""
    frames = [0, *accumulate(part.frames for part in parts)]
    begins = [round(1_000_000 * number / fps) for number in frames]
    yield "ffconcat version 1.0"
    for part, (begin, end) in zip(parts, pairwise(begins), strict=True):
        yield f"file {part.path.name}"
        yield f"duration {(end - begin) // 1_000_000}.{(end - begin) % 1_000_000:06d}"


def _check_alike(parts: Sequence[CodedPart], output: Path) -> None:
    """Make sure that a decoder that was set up for the first part reads the others too.

    Raises:
        OutputError: They were coded otherwise, or one cannot be read.
    """
    try:
        setups = {_setup(part.path) for part in parts}
    except OSError as error:
        raise OutputError(f"A part of --output {output} cannot be read: {error.strerror}.") from error
    if len(setups) != 1 or None in setups:
        raise OutputError(
            f"The parts of --output {output} were coded by different encoders.",
            "Give all nodes the same ffmpeg, or leave --split-over out.",
        )


def _setup(path: Path) -> bytes | None:
    """What a decoder of an MP4 is told first; None where it is not found."""
    with path.open("rb") as file:
        index = _box(file, b"moov")
    for name in _SETUPS:
        if (at := index.find(name)) >= 4:
            return index[at : at - 4 + int.from_bytes(index[at - 4 : at], "big")]
    return None


def _box(file: BinaryIO, wanted: bytes) -> bytes:
    """The contents of a box at the top of an MP4; empty where there is none."""
    while len(header := file.read(8)) == 8:
        size, name = struct.unpack(">I4s", header)
        used = 8
        if size == 1:
            size, used = int.from_bytes(file.read(8), "big"), 16
        if name == wanted:
            return file.read(min(size - used, _LARGEST_BOX))
        if size < used:
            break
        file.seek(size - used, 1)
    return b""
