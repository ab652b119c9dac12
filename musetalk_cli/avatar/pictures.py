"""The picture files of an avatar: which ones there are, and what they hold.

Every picture is decoded only after its header has shown the size that the description says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from musetalk_cli.avatar.data import Patch
from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.avatar.layout import FRAMES_DIR, IDLE_DIR, MASKS_DIR, image_name
from musetalk_cli.avatar.links import check_inside
from musetalk_cli.errors import AvatarError
from musetalk_cli.media.stills import MAX_PIXELS, decode_image, header_size
from musetalk_cli.types import Box, Image

_FILE_BYTES, _BYTES_PER_PIXEL = 1 << 20, 8
"""Of a picture's file, the most: more than one of 16 bits and four channels that is not compressed."""
_NAMED = 3


def file_problems(folder: Path, meta: AvatarMeta) -> Iterator[str]:
    """Compare the image files that are there with those the description asks for."""
    with_face = [number for number, box in enumerate(meta.boxes) if box is not None]
    for place, numbers in (
        (FRAMES_DIR, range(meta.frames)),
        (MASKS_DIR, with_face),
        (IDLE_DIR, range(meta.idle_frames)),
    ):
        expected = {image_name(number) for number in numbers}
        try:
            check_inside(folder, folder / place)
            with os.scandir(folder / place) as entries:
                listed = list(entries)
            for entry in listed:
                if entry.is_symlink():
                    check_inside(folder, Path(entry.path))
            found = {entry.name for entry in listed if entry.is_file()}
        except AvatarError as error:
            yield error.message
            continue
        except OSError as error:
            if expected or not isinstance(error, FileNotFoundError):
                yield f"{place}/ cannot be read: {error.strerror}."
            continue
        if missing := expected - found:
            yield f"{place}/ lacks {_some(missing)}."
        if extra := found - expected:
            yield f"{place}/ has {_some(extra)}, which the description does not know."


def _some(names: set[str]) -> str:
    listed = sorted(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def read_frame(folder: Path, meta: AvatarMeta, number: int) -> Image:
    """A forward frame: uint8 `[height, width, 3]`, BGR.

    Raises:
        FileNotFoundError: There is no such file.
        AvatarError: The file is broken, or of another size.
    """
    return _image(folder / FRAMES_DIR / image_name(number), (meta.width, meta.height), grey=False)


def read_patch(folder: Path, meta: AvatarMeta, number: int) -> Patch | None:
    """What can change in a forward frame; None for a pass-through frame, which has no file.

    Raises:
        FileNotFoundError: There is no such file.
        AvatarError: The file is broken, or of another size.
    """
    box, crop = meta.boxes[number], meta.crop_boxes[number]
    if box is None or crop is None:
        return None
    mask = read_mask(folder, crop, number)
    return Patch.cut(mask, box, crop, (meta.width, meta.height))


def read_mask(folder: Path, crop: Box, number: int) -> Image:
    """The mask of a frame with a face: uint8 `[crop.height, crop.width]`.

    Raises:
        FileNotFoundError: There is no such file.
        AvatarError: The file is broken, or of another size.
    """
    return _image(folder / MASKS_DIR / image_name(number), (crop.width, crop.height), grey=True)


def read_idle(folder: Path, meta: AvatarMeta, number: int) -> Image:
    """A frame of the idle clip: uint8 `[height, width, 3]`, BGR.

    Raises:
        FileNotFoundError: There is no such file.
        AvatarError: The file is broken, or of another size.
    """
    return _image(folder / IDLE_DIR / image_name(number), (meta.width, meta.height), grey=False)


def check_idle(folder: Path, meta: AvatarMeta, number: int) -> None:
    """Look at the header of a frame of the idle clip, as `read_idle` does, without decoding the picture."""
    _checked(folder / IDLE_DIR / image_name(number), (meta.width, meta.height))


def _image(path: Path, size: tuple[int, int], *, grey: bool) -> Image:
    """Decode a file only after its header has shown the wanted size."""
    data = _checked(path, size)
    if size[0] * size[1] > MAX_PIXELS:
        raise AvatarError(f"{_place(path)} has more than {MAX_PIXELS >> 20} million pixels.")
    image = decode_image(data, grey=grey)
    if image is None or image.shape[:2] != (size[1], size[0]):
        raise AvatarError(f"{_place(path)} is broken.")
    return image


def _checked(path: Path, size: tuple[int, int]) -> bytes:
    """An image file whose header shows the wanted size."""
    if not path.is_file():
        raise FileNotFoundError(f"{_place(path)} is missing.")
    try:
        if path.stat().st_size > _FILE_BYTES + _BYTES_PER_PIXEL * size[0] * size[1]:
            raise AvatarError(f"{_place(path)} is too large to be a frame.")
        data = path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{_place(path)} cannot be read: {error.strerror}.") from error
    declared = header_size(data)
    if declared is None:
        raise AvatarError(f"{_place(path)} is broken.")
    if declared != size:
        raise AvatarError(
            f"{_place(path)} is {declared[0]}x{declared[1]}, but the description says {size[0]}x{size[1]}."
        )
    return data


def _place(path: Path) -> str:
    """A file's place inside the avatar's folder."""
    return f"{path.parent.name}/{path.name}"
