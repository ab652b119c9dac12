"""The folder of avatars: list, load, check and remove.

    avatars/<name>/avatar.json · full_imgs/%08d.png · masks/%08d.png · latents.safetensors

`n` forward frames, never mirrored; masks have the size of their crop boxes; no pickle.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from musetalk_cli.avatar.data import (
    Avatar,
    AvatarMemory,
    AvatarMeta,
    Patch,
    is_name,
    memory_of,
    validate_name,
)
from musetalk_cli.avatar.latents import LatentsFormat, read_format, read_latents
from musetalk_cli.avatar.writer import (
    FRAMES_DIR,
    MASKS_DIR,
    META_FILE,
    AvatarWriter,
    image_name,
)
from musetalk_cli.errors import AvatarError, OutputError
from musetalk_cli.media.stills import decode_image, header_size
from musetalk_cli.types import Image

__all__ = [
    "AvatarWriter",
    "latents_format",
    "list_avatars",
    "load_avatar",
    "load_meta",
    "measure",
    "remove",
    "verify",
]

_MAX_META_BYTES = 1 << 28
_MAX_IMAGE_BYTES = 1 << 29
_NAMED = 3
_THREADS = 8

T = TypeVar("T")


def list_avatars(avatars_dir: Path) -> list[str]:
    """Names of the avatars in a folder, sorted; none where there is no such folder.

    Raises:
        AvatarError: What is there is no folder, or it cannot be read.
    """
    if avatars_dir.exists() and not avatars_dir.is_dir():
        raise AvatarError(f"{avatars_dir} is not a folder.", "Name the folder of avatars with --avatars-dir.")
    try:
        found = [path.parent.name for path in avatars_dir.glob(f"*/{META_FILE}") if path.is_file()]
    except OSError as error:
        raise AvatarError(
            f"{avatars_dir} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    return sorted(name for name in found if is_name(name))


def load_meta(avatars_dir: Path, name: str) -> AvatarMeta:
    """Read and check an avatar's description.

    Raises:
        AvatarError: There is no such avatar, or its description is broken.
    """
    folder = _folder_of(avatars_dir, name)
    try:
        path = folder / META_FILE
        if path.stat().st_size > _MAX_META_BYTES:
            raise AvatarError(f"{path} is too large to be an avatar's description.", _again(name))
        return AvatarMeta.from_json(path.read_bytes())
    except OSError as error:
        raise AvatarError(f"{error.filename} cannot be read: {error.strerror}.", _again(name)) from error
    except AvatarError as error:
        raise AvatarError(f"Avatar {name}: {error.message}", error.hint) from error


def load_avatar(avatars_dir: Path, name: str) -> Avatar:
    """Load an avatar into host memory; every file is decoded once, several at a time.

    Raises:
        AvatarError: There is no such avatar, or a file is missing, broken or does not fit the description.
    """
    import torch

    meta = load_meta(avatars_dir, name)
    folder = avatars_dir / name
    for problem in _file_problems(folder, meta):
        raise AvatarError(f"Avatar {name}: {problem}", _again(name))
    try:
        latents = torch.from_numpy(read_latents(folder, meta.frames, _again(name)))
        frames = _each(meta, partial(_frame, folder, meta))
        patches = _each(meta, partial(_patch, folder, meta))
    except (AvatarError, FileNotFoundError) as error:
        raise AvatarError(f"Avatar {name}: {error}", _again(name)) from error
    return Avatar(meta, frames, patches, latents)


def measure(avatars_dir: Path, name: str) -> AvatarMemory:
    """What an avatar will take once loaded; reads its masks, not its frames.

    Raises:
        AvatarError: There is no such avatar, or a file is missing or broken.
    """
    meta = load_meta(avatars_dir, name)
    folder = avatars_dir / name
    for problem in _file_problems(folder, meta):
        raise AvatarError(f"Avatar {name}: {problem}", _again(name))
    try:
        return memory_of(meta, _each(meta, partial(_patch, folder, meta)))
    except (AvatarError, FileNotFoundError) as error:
        raise AvatarError(f"Avatar {name}: {error}", _again(name)) from error


def latents_format(avatars_dir: Path, name: str) -> LatentsFormat:
    """The number format an avatar's latents are stored in; in memory they are float32.

    Raises:
        AvatarError: There is no such avatar, or its description or latents are broken.
    """
    meta = load_meta(avatars_dir, name)
    return read_format(avatars_dir / name, meta.frames, _again(name))


def verify(avatars_dir: Path, name: str) -> list[str]:
    """Everything that is wrong with an avatar, one sentence each; empty where it is sound.

    Raises:
        AvatarError: There is no such avatar.
    """
    folder = _folder_of(avatars_dir, name)
    try:
        meta = load_meta(avatars_dir, name)
    except AvatarError as error:
        return [error.message]
    problems = list(_file_problems(folder, meta))
    try:
        read_latents(folder, meta.frames, _again(name))
    except AvatarError as error:
        problems.append(error.message)
    for read in (partial(_frame, folder, meta), partial(_patch, folder, meta)):
        kept = _each(meta, partial(_complaint, read))
        problems += [text for text in kept if text is not None and text not in problems]
    return problems


def remove(avatars_dir: Path, name: str) -> None:
    """Remove an avatar at once; of a link to an avatar elsewhere, only the link.

    Raises:
        AvatarError: There is no such avatar.
        OutputError: It cannot be removed.
    """
    folder = _folder_of(avatars_dir, name)
    try:
        if folder.is_symlink():
            folder.unlink()
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.old-", dir=avatars_dir))
        folder.rename(aside / name)
        shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(
            f"The avatar {name} in {avatars_dir} cannot be removed: {error.strerror}.",
            "Check its permissions.",
        ) from error


def _again(name: str) -> str:
    return f"Run musetalk avatars verify {name}, then prepare or import it again."


def _folder_of(avatars_dir: Path, name: str) -> Path:
    folder = avatars_dir / validate_name(name)
    if not (folder / META_FILE).is_file():
        names = list_avatars(avatars_dir)
        there = f"There are: {', '.join(names)}." if names else "There are none; import or prepare one first."
        raise AvatarError(f"There is no avatar {name} in {avatars_dir}.", there)
    return folder


def _file_problems(folder: Path, meta: AvatarMeta) -> Iterator[str]:
    """Compare the image files that are there with those the description asks for."""
    expected = {image_name(number) for number in range(meta.frames)}
    for place in (FRAMES_DIR, MASKS_DIR):
        try:
            with os.scandir(folder / place) as entries:
                found = {entry.name for entry in entries if entry.is_file()}
        except OSError as error:
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


def _each(meta: AvatarMeta, read: Callable[[int], T]) -> list[T]:
    """Read every frame's file in parallel; the first failure by frame number is the one raised."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "avatar") as pool:
        try:
            return list(pool.map(read, range(meta.frames)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _complaint(read: Callable[[int], object], number: int) -> str | None:
    try:
        read(number)
    except FileNotFoundError:
        return None
    except AvatarError as error:
        return error.message
    return None


def _frame(folder: Path, meta: AvatarMeta, number: int) -> Image:
    return _image(folder / FRAMES_DIR / image_name(number), (meta.width, meta.height), grey=False)


def _patch(folder: Path, meta: AvatarMeta, number: int) -> Patch:
    crop = meta.crop_boxes[number]
    mask = _image(folder / MASKS_DIR / image_name(number), (crop.width, crop.height), grey=True)
    return Patch.cut(mask, meta.boxes[number], crop, (meta.width, meta.height))


def _image(path: Path, size: tuple[int, int], *, grey: bool) -> Image:
    """Decode a file only after its header has shown the wanted size."""
    place = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise FileNotFoundError(f"{place} is missing.")
    try:
        if path.stat().st_size > _MAX_IMAGE_BYTES:
            raise AvatarError(f"{place} is too large to be a frame.")
        data = path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{place} cannot be read: {error.strerror}.") from error
    declared = header_size(data)
    if declared is not None and declared != size:
        raise AvatarError(
            f"{place} is {declared[0]}x{declared[1]}, but the description says {size[0]}x{size[1]}."
        )
    image = decode_image(data, grey=grey)
    if image is None or image.shape[:2] != (size[1], size[0]):
        raise AvatarError(f"{place} is broken.")
    return image
