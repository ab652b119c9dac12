"""Image files: names in their natural order, pixels, and what they weigh before they are decoded."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pictures
from PIL import TiffImagePlugin

from musetalk_cli.budget import check_budget, is_out_of_memory
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.media import heif
from musetalk_cli.media.pixels import DEEPEST, Deep, in_8_bits, on_black, upright
from musetalk_cli.media.profiles import Profile, profile_of
from musetalk_cli.types import Image

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif"}
)
MAX_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded: twice a frame of 8K."""

_ANIMATED = frozenset({".png", ".webp"})
_ORIENTATION = 0x0112
_BY_PILLOW = frozenset({"HEIF", "AVIF"})
_BYTES_PER_PIXEL = 32
"""Of memory that decoding takes at most: 16 bits and transparency, a copy of them, and colours converted."""


def is_image(path: Path) -> bool:
    """True where the name is that of an image file."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def is_still(path: Path) -> bool:
    """True for the file of one picture: by its name, or a HEIC or AVIF by its beginning."""
    return (is_image(path) and not is_animated(path)) or heif.kind_of(_head(path)) is not None


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

    Raises:
        MemoryError: There is not enough memory.
    """
    size = header_size(data)
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        return None
    if image is None:
        _check_memory(size[0] * size[1])
        return None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if grey else image, np.uint8)


def is_animated(path: Path) -> bool:
    """True where an image file holds several pictures that follow each other in time."""
    if path.suffix.lower() not in _ANIMATED:
        return False
    with _header(path) as picture:
        return bool(getattr(picture, "is_animated", False))


def has_alpha(path: Path) -> bool:
    """True where the header of an image file announces transparency; False for what is no image."""
    with _header(path) as picture:
        return picture is not None and _transparent(picture)


def colour_profile(path: Path) -> Profile | None:
    """The colour profile of an image file, from its header; None where it says sRGB, or nothing."""
    with _header(path) as picture:
        return None if picture is None else profile_of(picture)


def read_image(path: Path) -> Image:
    """Read an image file given by the user, upright, in 8 bits of sRGB, and on black where it is transparent.

    Returns:
        uint8 `[height, width, 3]`, BGR.

    Raises:
        InputError: The file cannot be read, is no usable image, or takes more memory than the budget.
        MemoryError: There is not enough memory.
    """
    try:
        size = path.stat().st_size
        check_budget(size, str(path), InputError)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    heif.check_readable(path, data)
    image, pixels = None, 0
    with _header(path) as picture:
        if picture is not None:
            pixels = picture.width * picture.height
            check_pixels(path, picture.size)
            check_budget(size + _BYTES_PER_PIXEL * pixels, f"What {path} shows", InputError)
            image = _decode_deep(data, picture) if pixels else None
    if image is None:
        _check_memory(pixels)
        raise InputError(f"{path} is not an image that can be read.", "Pass a PNG or JPEG file.")
    return image


def check_pixels(source: Path, size: tuple[int, int]) -> None:
    """Refuse pictures, or frames of a video, of this width and height where they are too large to be decoded.

    Raises:
        InputError: They have more than `MAX_PIXELS`.
    """
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(
            f"{source} has frames of {size[0]}x{size[1]}, more than the "
            f"{MAX_PIXELS >> 20} million pixels that one may have.",
            "Make it smaller first.",
        )


def _decode_deep(data: bytes, picture: Pictures.Image) -> Image | None:
    """Decode an image of any depth, upright and opaque; None where it cannot be decoded."""
    profile = profile_of(picture)
    # OpenCV turns a TIFF in any case, other formats not where it keeps the transparency.
    turned = 1 if picture.format == "TIFF" else picture.getexif().get(_ORIENTATION, 1)
    if picture.format in _BY_PILLOW or picture.mode == "CMYK":
        image = _by_pillow(picture, profile)
        if image is None or (picture.mode == "CMYK" and profile is not None):
            return None if image is None else np.ascontiguousarray(upright(image, turned))
        deep: Deep = image
    else:
        found = _by_opencv(data, straight=_straight_alpha(picture))
        if found is None:
            return None
        deep = found
        turned = turned if deep.shape[2] == 4 else 1
    if profile is not None:
        deep = np.dstack([profile.convert(in_8_bits(deep[..., :3])), in_8_bits(deep[..., 3:])])
    opaque = on_black(deep) if deep.shape[2] == 4 else in_8_bits(deep)
    return np.ascontiguousarray(upright(opaque, turned))


def _by_opencv(data: bytes, *, straight: bool) -> Deep | None:
    """Blue, green, red in 8 or 16 bits, upright; or with the alpha, not upright."""
    raw = np.frombuffer(data, np.uint8)
    try:
        image = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if straight else None
        if image is not None and image.ndim == 3 and image.shape[2] == 4 and image.dtype in DEEPEST:
            return np.asarray(image)
        image = cv2.imdecode(raw, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if image is not None and image.dtype not in DEEPEST:
            image = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    except cv2.error as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        return None
    return None if image is None else np.asarray(image)


def _by_pillow(picture: Pictures.Image, profile: Profile | None) -> Image | None:
    """Blue, green, red and perhaps alpha, as stored; only printing inks are converted here."""
    try:
        if picture.mode == "CMYK" and profile is not None and profile.takes:
            whole = profile.to_srgb(picture)
        else:
            whole = picture.convert("RGBA" if _transparent(picture) else "RGB")
        pixels = np.asarray(whole)
    except (OSError, ValueError, SyntaxError, RuntimeError, EOFError):
        return None
    return pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def _check_memory(pixels: int) -> None:
    """Tell a lack of memory from a broken picture: decoders say neither which of the two it was.

    Raises:
        MemoryError: There is no memory for a picture of so many pixels.
    """
    np.empty(_BYTES_PER_PIXEL * pixels, np.uint8)


def _head(path: Path) -> bytes:
    """The beginning of a file; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(heif.HEAD)
    except OSError:
        return b""


@contextlib.contextmanager
def _header(path: Path) -> Iterator[Pictures.Image | None]:
    """An image file whose pixels are not decoded; None where it is none."""
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            heic = heif.kind_of(_head(path)) == "HEIC"
            opened = heif.open_heic(path) if heic else Pictures.open(path)
            picture: Pictures.Image | None = stack.enter_context(opened)
        except (OSError, ValueError, SyntaxError, Pictures.DecompressionBombError):
            picture = None
        yield picture


def _transparent(picture: Pictures.Image) -> bool:
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return any(kind in {1, 2} for kind in picture.tag_v2.get(TiffImagePlugin.EXTRASAMPLES, ()))
    return picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info


def _straight_alpha(picture: Pictures.Image) -> bool:
    """True where OpenCV gives colours that are still to be multiplied by their alpha.

    In a TIFF they are multiplied as stored (extra samples of kind 1), or on reading where they have 8 bits.
    """
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        deep = max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8
        return deep and 2 in picture.tag_v2.get(TiffImagePlugin.EXTRASAMPLES, ())
    return _transparent(picture)


def png_of(image: Image) -> bytes:
    """An image as PNG, without loss.

    Raises:
        OutputError: It cannot be encoded, like one without any pixel.
        MemoryError: There is not enough memory.
    """
    try:
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    except cv2.error as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        done = False
    if not done:
        raise OutputError(f"A picture of {image.shape[1]}x{image.shape[0]} cannot be encoded as PNG.")
    return data.tobytes()


def write_png(path: Path, image: Image) -> None:
    """Write an image without loss.

    Raises:
        OutputError: The file cannot be written.
    """
    data = png_of(image)
    try:
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", "Free some space.") from error
