"""Signatures of the containers whose joined recordings ffmpeg does not read to the last.

Its decoder ends after the first recording, or takes the head of the next one for sound.
"""

from __future__ import annotations

import re
from typing import IO, NamedTuple

HEAD_BYTES = 64
"""The longest signature that is looked at."""
_BLOCK = 1 << 20


class Signature(NamedTuple):
    """How a container begins: its first bytes, and all of its head that does not vary by chance."""

    first: bytes
    whole: re.Pattern[bytes]


def _signature(first: bytes, rest: bytes) -> Signature:
    return Signature(first, re.compile(re.escape(first) + rest, re.DOTALL))


WAV = _signature(b"RIFF", rb".{4}WAVEfmt ")
_SIGNATURES = (
    _signature(b"RIFF", rb".{4}AVI LIST.{4}hdrlavih"),
    _signature(b"RF64", rb".{4}WAVEds64"),
    _signature(b"BW64", rb".{4}WAVEds64"),
    _signature(b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", rb"\x04\xc1\0\0.{8}wave"),
    _signature(b"FORM", rb".{4}AIF[FC][A-Z(][A-Za-z0-9() ]{3}"),
    _signature(b".snd", rb"\0\0.{6}\0\0\0[\1-\x1b]\0[\0-\x0c].{2}\0\0\0[\1-\x40]"),
    _signature(b"caff\0\1", rb"\0\0desc\0{7}\x20"),
    _signature(b"fLaC", rb"[\0\x80]\0\0\x22"),
    _signature(b"TTA1", rb"[\1-\3]\0[\1-\x40]\0[\x08\x10\x18]\0.{2}[\0-\x0f]\0"),
    _signature(b"Creative Voice File\x1a", b""),
    _signature(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa\0\x62\xce\x6c", b""),
    _signature(b"FLV\1", rb"[\1\4\5]\0{3}\x09\0{4}"),
    _signature(b"nut/multimedia container\0", b""),
    _signature(b"MMMD", rb".{4}CNTI"),
    _signature(b".SoX", rb".{2}\0\0.{8}.{8}.\0\0\0"),
    _signature(b"#!AMR", rb"(-WB)?\n"),
)
"""None of them is likely in sound: each has 6 bytes or more that are always the same."""


def signature_of(head: bytes) -> Signature | None:
    """The signature that a file begins with, by its first `HEAD_BYTES`; None where it is none of these."""
    return next((known for known in _SIGNATURES if known.whole.match(head)), None)


def next_signature(file: IO[bytes], at: int, size: int, wanted: Signature) -> int:
    """Where at or after a place the next recording of a container begins, or the end of the file."""
    file.seek(at)
    tail = b""
    while block := file.read(_BLOCK):
        data = tail + block
        found = data.find(wanted.first)
        while found >= 0:
            if wanted.whole.match(data, found):
                return at - len(tail) + found
            found = data.find(wanted.first, found + 1)
        at += len(block)
        tail = data[-HEAD_BYTES:]
    return size
