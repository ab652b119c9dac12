"""HEIC and AVIF photographs, whole: they are stored in tiles, which not every decoder puts together."""

from __future__ import annotations

from pathlib import Path

from PIL import Image as Pictures
from PIL import features

from musetalk_cli.errors import InputError

HEAD = 512
"""Bytes at the beginning of a file that tell what it is."""

_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"})
_AVIF = frozenset({b"avif"})
_SEQUENCES = {b"avis": "AVIF", b"msf1": "HEIC", b"hevc": "HEIC", b"hevx": "HEIC"}


def kind_of(head: bytes) -> str | None:
    """`HEIC` or `AVIF` where a file begins as such a photograph, or a sequence of them, does; else None."""
    brands = _brands(head)
    if not brands or brands[0] not in {*_HEIC, *_AVIF, *_SEQUENCES}:
        return None
    return _SEQUENCES.get(brands[0]) or ("AVIF" if _AVIF.intersection(brands) else "HEIC")


def check_readable(path: Path, data: bytes) -> None:
    """Refuse a file that cannot be read here as a whole.

    Raises:
        InputError: It is cut off or a sequence of pictures, or what reads it is not installed.
    """
    kind = kind_of(data[:HEAD])
    if kind is None:
        return
    if is_cut_off(data):
        raise InputError(f"{path} is cut off.", "Copy the photograph again.")
    if _brands(data[:HEAD])[0] in _SEQUENCES:
        raise InputError(f"{path} is a moving {kind} picture, which is not read.", "Convert it to MP4.")
    if kind == "AVIF" and not features.check("avif"):
        raise InputError(
            f"{path} is an AVIF picture, and this Pillow cannot read it.",
            "Save it as JPEG, or install a Pillow with AVIF: pip install 'pillow>=11.3'",
        )
    if kind == "HEIC" and not _reads_heic():
        raise InputError(
            f"{path} is a HEIC picture, and what reads it is not installed.",
            "Save it as JPEG, or: pip install 'musetalk-cli[heic]'",
        )


def is_cut_off(data: bytes) -> bool:
    """True where the boxes of a HEIC or AVIF file promise more bytes than there are.

    Decoders show what is missing as grey tiles, and say nothing.
    """
    at = 0
    while at + 8 <= len(data):
        size, begin = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 0:  # the last box may run to the end of the file
            return False
        if size == 1:
            size, begin = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if size < begin:
            return True
        at += size
    return at > len(data)


def open_heic(path: Path) -> Pictures.Image:
    """A HEIC picture whose pixels are not decoded yet; once decoded it is upright.

    Raises:
        OSError: It is damaged.
        ValueError: The same.
    """
    from pillow_heif import HeifImageFile

    try:
        picture: Pictures.Image = HeifImageFile(path)
    except (RuntimeError, EOFError) as error:
        raise ValueError(str(error)) from error
    return picture


def _brands(head: bytes) -> list[bytes]:
    """The major brand of an ISO file, then the compatible ones; nothing where it is none."""
    if head[4:8] != b"ftyp":
        return []
    size = min(int.from_bytes(head[:4], "big"), len(head))
    return [head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))]


def _reads_heic() -> bool:
    try:
        import pillow_heif  # noqa: F401 - whether it can be imported is what is asked
    except ImportError:
        return False
    return True
