"""Containers of sound that are taken for raw PCM: known by how they begin."""

from __future__ import annotations

from musetalk_cli.errors import InputError
from musetalk_cli.media.segments import frame_bytes

_SIGNATURES: tuple[tuple[str, tuple[tuple[int, bytes], ...]], ...] = (
    ("WAV", ((0, b"RIFF"), (8, b"WAVE"))),
    ("WAV", ((0, b"RIFX"), (8, b"WAVE"))),
    ("WAV", ((0, b"RF64"), (8, b"WAVE"))),
    ("WAV", ((0, b"BW64"), (8, b"WAVE"))),
    ("WAV", ((0, b"riff\x2e\x91\xcf\x11"),)),
    ("AVI", ((0, b"RIFF"), (8, b"AVI "))),
    ("AIFF", ((0, b"FORM"), (8, b"AIF"))),
    ("MP3", ((0, b"ID3\x02"),)),
    ("MP3", ((0, b"ID3\x03"),)),
    ("MP3", ((0, b"ID3\x04"),)),
    ("Ogg", ((0, b"OggS"),)),
    ("FLAC", ((0, b"fLaC"),)),
    ("MP4 or M4A", ((0, b"\0\0"), (4, b"ftyp"))),
    ("Matroska or WebM", ((0, b"\x1a\x45\xdf\xa3"),)),
    ("CAF", ((0, b"caff\0\1"),)),
    ("AU", ((0, b".snd"),)),
    ("AMR", ((0, b"#!AMR"),)),
    ("SILK", ((0, b"#!SILK"),)),
    ("SILK", ((0, b"\x02#!SILK"),)),
    ("WMA", ((0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),)),
    ("FLV", ((0, b"FLV\1"),)),
    ("WavPack", ((0, b"wvpk"),)),
    ("APE", ((0, b"MAC "),)),
    ("TTA", ((0, b"TTA1"),)),
    ("VOC", ((0, b"Creative Voice File"),)),
    ("NIST SPHERE", ((0, b"NIST_1A"),)),
)
"""Names, and what stands where. None of it is likely in raw sound: the shortest is 4 bytes."""
_FRAMES = 3
"""Frame headers in a row, each of which says where the next one is, that are no accident."""


def recognise(head: bytes) -> str | None:
    """Name the container that a stream of bytes begins.

    Args:
        head: The first bytes.

    Returns:
        Its name; empty where it is none; None while more bytes are needed to tell.
    """
    undecided = False
    for name, marks in _SIGNATURES:
        held = [head[place : place + len(mark)] for place, mark in marks]
        if all(have == mark[: len(have)] for have, (_, mark) in zip(held, marks, strict=True)):
            if len(held[-1]) == len(marks[-1][1]):
                return name
            undecided = any(head)  # a silent beginning is not kept waiting
    framed = _recognise_frames(head)
    return framed or (None if undecided or framed is None else "")


def _recognise_frames(head: bytes) -> str | None:
    """MP3, MP2 or AAC without a container; empty and None as in `recognise`."""
    at, first, name = 0, b"", ""
    for _ in range(_FRAMES):
        frame = head[at : at + 7]
        if len(frame) < 7:
            likely = frame[:1] in {b"", b"\xff"} and (len(frame) < 2 or frame[1] & 0xE0 == 0xE0)
            return None if likely else ""
        first = first or frame
        if frame[1] & 0xFE != first[1] & 0xFE or frame[2] & 0x0C != first[2] & 0x0C:
            return ""
        name, length = _frame(frame)
        if not length:
            return ""
        at += length
    return name


def _frame(head: bytes) -> tuple[str, int]:
    """Name and bytes of the frame that 7 bytes begin; 0 bytes where they begin none."""
    if head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return "AAC", length if length >= 7 and head[2] >> 2 & 15 < 13 else 0
    layer = 4 - (head[1] >> 1 & 3)  # layer 1 is in no file, but in the noise of quiet sound
    return "MP3" if layer == 3 else "MP2", frame_bytes(head) if layer in {2, 3} else 0


def refusal(where: str, container: str, sample_rate: int, channels: int) -> InputError:
    """The error that says what came in place of raw PCM, and how it is decoded on its way."""
    return InputError(
        f"{container} came from {where}, not raw 16-bit PCM.",
        f"Decode it on its way: ... | ffmpeg -i - -f s16le -ar {sample_rate} -ac {channels} - | ...; "
        "or name a file with --audio FILE.",
    )
