"""Image files: names in their natural order, pixels, and what they weigh before they are decoded."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pictures

from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.types import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded: twice a frame of 8K."""

_BLOCK = 1 << 20


def is_image(path: Path) -> bool:
    """True where the name is that of an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_key(path: Path) -> tuple[tuple[int, str], ...]:
    """A key that sorts `2.png` before `10.png`."""
    parts = re.findall(r"\d+|\D+", path.name)
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder in their natural order.

    Raises:
        InputError: The folder cannot be read.
    """
    try:
        found = [path for path in folder.iterdir() if is_image(path) and path.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}.", "Check its permissions.") from error
    return sorted(found, key=natural_key)


def header_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that an image file declares, without decoding it; None where it is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Pictures.open(io.BytesIO(data)) as picture:
                return int(picture.width), int(picture.height)
    except (OSError, ValueError, SyntaxError, Pictures.DecompressionBombError):
        return None


def decode_image(data: bytes, *, grey: bool = False) -> Image | None:
    """Decode an image file.

    Args:
        data: The file.
        grey: Give one channel. An image whose three channels are equal gives exactly that channel.

    Returns:
        uint8 `[height, width, 3]`, BGR, or `[height, width]`; None where the file is no image, is cut off,
        or declares more than `MAX_PIXELS`.
    """
    size = header_size(data)
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    if image is None:
        return None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if grey else image, np.uint8)


def read_image(path: Path) -> Image:
    """Read an image file given by the user: uint8 `[height, width, 3]`, BGR.

    Raises:
        InputError: The file cannot be read or is no usable image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    image = decode_image(data)
    if image is None:
        raise InputError(f"{path} is not an image that can be read.", "Pass a PNG or JPEG file.")
    return image


def write_png(path: Path, image: Image) -> None:
    """Write an image without loss.

    Raises:
        OutputError: The file cannot be written.
    """
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise OutputError(f"{path} cannot be encoded as PNG.")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", "Free some space.") from error


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 in hexadecimal: of the file, or for several of their digests in order.

    Raises:
        InputError: A file cannot be read.
    """
    digests = [_file_digest(path) for path in files]
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()


def _file_digest(path: Path) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    return digest.digest()
