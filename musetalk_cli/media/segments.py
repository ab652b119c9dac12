"""The recordings that one file holds one after the other, and whether the last of them is whole."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from musetalk_cli.media.signatures import HEAD_BYTES, WAV, Signature, next_signature, signature_of

_BITRATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Kilobits per second by MPEG-1 or not, and layer: ISO 11172-3 and 13818-3, table of bitrate_index."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""Samples per second by the version bits of a frame header."""
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
"""How the two elements begin that a Matroska file consists of."""
_UNKNOWN_SIZE = 0x7FFF_F000
"""Sizes from here on are what ffmpeg and SoX write where they cannot know the length."""
_LENGTH_FRAME_BYTES = 200
"""Where in its first bytes an MP3 has the frame that states the length."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One recording in a file.

    Attributes:
        begin: Its first byte.
        end: The byte after its last.
        cut: True where its own headers say that something of it is missing.
        open_ended: True for a WAV whose header states no length, or one beyond the end of the file.
        missing: Bytes of sound that such a header promises beyond the end, as far as it can be meant.
        timed: False where nothing but the count of samples says when they sound.
        joins: Places where MPEG audio was joined; a decoder loses its step at each.
    """

    begin: int
    end: int
    cut: bool = False
    open_ended: bool = False
    missing: int = 0
    timed: bool = True
    joins: int = 0


def find_segments(path: Path) -> list[Segment]:
    """Find recordings that were put together by joining files, in formats whose frames tell.

    WAV, Matroska and Ogg are walked from header to header, and so is MP3, which one decoder reads through.
    Other containers are looked through for where they begin again. Of every other format the file is one
    segment; time stamps tell that a recording begins anew.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            return _wav_segments(file, size)
        if head[:4] == _EBML:
            return _matroska_segments(file, size)
        if head[:4] == b"OggS":
            return _ogg_segments(file, size)
        if (signature := signature_of(head)) is not None:
            return _segments_from(file, size, signature)
        return [_mpeg_segment(file, size) or Segment(0, size, timed=not _is_raw(file, head))]


def _segments_from(file: IO[bytes], size: int, signature: Signature) -> list[Segment]:
    """A segment from each place where a container begins to the next."""
    places = [0]
    while (place := next_signature(file, places[-1] + 1, size, signature)) < size:
        places.append(place)
    return [Segment(begin, end) for begin, end in pairwise([*places, size])]


def _is_raw(file: IO[bytes], head: bytes) -> bool:
    """True for frames of AAC or AC-3 without a container: only their number tells the time."""
    file.seek(_tag_bytes(head))
    word = int.from_bytes(file.read(2), "big")
    return word & 0xFFF6 == 0xFFF0 or word == 0x0B77


def _wav_segments(file: IO[bytes], size: int) -> list[Segment]:
    segments, begin, at = [], 0, 12
    has_sound = False
    while True:
        file.seek(at)
        head = file.read(8)
        name, length = head[:4], int.from_bytes(head[4:], "little")
        if name == b"RIFF" and has_sound:
            segments.append(Segment(begin, at))
            begin, at, has_sound = at, at + 12, False
        elif name == b"data" and (length == 0 or at + 8 + length > size):
            end = next_signature(file, at + 8, size, WAV)
            promised = length if length < _UNKNOWN_SIZE else 0
            segments.append(Segment(begin, end, open_ended=True, missing=max(0, promised - (end - at - 8))))
            if end == size:
                return segments
            begin, at, has_sound = end, end + 12, False
        elif len(head) < 8:
            return [*segments, Segment(begin, size)] if begin < size else segments
        else:
            has_sound = has_sound or name == b"data"
            at += 8 + length + length % 2


def frame_bytes(head: bytes) -> int:
    """Bytes of the MPEG audio frame that a header of 4 bytes begins; 0 where it is no such header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in {0, 15} or rate == 3:
        return 0
    bitrate = _BITRATES[version == 3, layer][bits - 1] * 1000
    hertz, padding = _RATES[version][rate], head[2] >> 1 & 1
    if layer == 1:
        return (12 * bitrate // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bitrate // hertz + padding


def _tag_bytes(head: bytes) -> int:
    """Bytes of the ID3 or APE tag that begins here; 0 where none does."""
    if head[:3] == b"ID3" and len(head) >= 10:
        footer = 10 if head[5] & 0x10 else 0
        return 10 + footer + sum((byte & 0x7F) << 7 * (3 - place) for place, byte in enumerate(head[6:10]))
    if head[:3] == b"TAG":
        return 128
    if head[:8] == b"APETAGEX" and len(head) >= 24:
        footer_only = not head[23] & 0x20
        return 32 if footer_only else 32 + int.from_bytes(head[12:16], "little")
    return 0


def _stated_frames(head: bytes) -> int | None:
    """Frames that follow, as the first frame of an MP3 states them; 0 where it does not say how many."""
    for name in (b"Xing", b"Info"):
        at = head.find(name, 4, 48)
        if at >= 0:
            flags = head[at + 7] if len(head) > at + 7 else 0
            return int(struct.unpack(">I", head[at + 8 : at + 12])[0]) if flags & 1 else 0
    if head[36:40] == b"VBRI":
        return int(struct.unpack(">I", head[50:54])[0])
    return None


def _matroska_segments(file: IO[bytes], size: int) -> list[Segment]:
    """One for each EBML segment that states its length; without a length it lasts to the end of the file."""
    segments, begin, at = [], 0, 0
    while at < size:
        file.seek(at)
        head = file.read(12)
        width = 9 - head[4].bit_length() if len(head) > 4 else 0
        if head[:4] not in {_EBML, _SEGMENT} or not 1 <= width <= 8 or len(head) < 4 + width:
            break
        if head[:4] == _EBML and at > begin:
            segments.append(Segment(begin, at))
            begin = at
        length = int.from_bytes(head[4 : 4 + width], "big") & (1 << 7 * width) - 1
        if length == (1 << 7 * width) - 1:
            break
        at += 4 + width + length
    return [*segments, Segment(begin, size)]


def _ogg_segments(file: IO[bytes], size: int) -> list[Segment]:
    """A segment for each link of a chain (RFC 3533, section 4): the first pages of its streams begin it.

    What is no page ends the walk: the decoder finds damage. The last segment is cut where its last page is
    not complete.
    """
    segments, begin, at = [], 0, 0
    cut, beginning = False, True
    while at < size:
        file.seek(at)
        head = file.read(27 + 255)
        if head[:4] != b"OggS"[: len(head)]:
            break
        first = len(head) > 5 and bool(head[5] & 2)
        if first and not beginning:
            segments.append(Segment(begin, at))
            begin = at
        beginning = first
        table = head[27 : 27 + head[26]] if len(head) > 26 else b""
        at += 27 + len(table) + sum(table)
        cut = len(head) < 27 or len(table) < head[26] or at > size
    return [*segments, Segment(begin, size, cut=cut)]


def _mpeg_segment(file: IO[bytes], size: int) -> Segment | None:
    """All of an MP3 or MP2; None where the file is something else.

    What is neither frame nor tag ends the walk, and the decoder judges what follows.
    """
    at = frames = stated = joins = 0
    cut = False
    while at < size:
        file.seek(at)
        head = file.read(_LENGTH_FRAME_BYTES)
        tag, length = _tag_bytes(head), frame_bytes(head)
        told = _stated_frames(head) if length else None
        if frames and (head[:3] == b"ID3" or told is not None):
            cut = cut or frames + 1 < stated
            joins += 1
            frames = stated = 0
        if tag:
            at += tag
            continue
        if not length or at + length > size:
            cut = cut or bool(length) or (len(head) < 4 and head[0] == 0xFF)
            break
        if told is None:
            frames += 1
        else:
            stated = told
        if not joins and frames + bool(stated) == 1 and not _in_step(file, head, at + length, size):
            return None
        at += length
    if not (joins or frames or stated):
        return None
    return Segment(0, size, cut or frames + 1 < stated, timed=False, joins=joins)


def _in_step(file: IO[bytes], head: bytes, at: int, size: int) -> bool:
    """True where the next frame, if there is one, is of the same version, layer and rate."""
    file.seek(at)
    following = file.read(4)
    if at >= size or _tag_bytes(following + bytes(20)):
        return True
    return len(following) < 4 or (
        frame_bytes(following) > 0
        and following[1] & 0xFE == head[1] & 0xFE
        and following[2] & 0x0C == head[2] & 0x0C
    )
