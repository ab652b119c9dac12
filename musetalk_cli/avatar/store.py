"""The folder of avatars: list, load, check and remove.

    avatars/<name>/avatar.json · full_imgs/%08d.png · masks/%08d.png · latents.safetensors · idle/%08d.png

`n` forward frames, never mirrored; masks have the size of their crop boxes, and pass-through frames have
none; the idle clip is there where the description says so; no pickle.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from musetalk_cli.avatar.data import Avatar, AvatarMemory, memory_of, pixels_of
from musetalk_cli.avatar.description import MAX_META_BYTES, AvatarMeta
from musetalk_cli.avatar.latents import read_format, read_latents
from musetalk_cli.avatar.layout import META_FILE, LatentsFormat
from musetalk_cli.avatar.names import find_folder, is_name, quoted, validate_name
from musetalk_cli.avatar.pictures import check_idle, file_problems, read_frame, read_idle, read_patch
from musetalk_cli.budget import check_budget
from musetalk_cli.errors import AvatarError, OutputError
from musetalk_cli.types import Clip

__all__ = [
    "latents_format",
    "list_avatars",
    "load_avatar",
    "load_idle",
    "load_meta",
    "measure",
    "remove",
    "verify",
]

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
    return sorted({unicodedata.normalize("NFC", name) for name in found if is_name(name)})


def load_meta(avatars_dir: Path, name: str) -> AvatarMeta:
    """Read and check an avatar's description, with the name of the folder it is in.

    Raises:
        AvatarError: There is no such avatar, or its description is broken.
    """
    folder = _folder_of(avatars_dir, name)
    try:
        with (folder / META_FILE).open("rb") as file:
            data = file.read(MAX_META_BYTES + 1)
        if len(data) > MAX_META_BYTES:
            raise AvatarError(f"{META_FILE} is larger than {MAX_META_BYTES >> 20} MB.", _again(name))
        meta = AvatarMeta.from_json(data)
        return replace(meta, name=unicodedata.normalize("NFC", folder.name))
    except OSError as error:
        raise AvatarError(f"{error.filename} cannot be read: {error.strerror}.", _again(name)) from error
    except AvatarError as error:
        raise AvatarError(f"Avatar {name}: {error.message}", error.hint) from error


def load_avatar(avatars_dir: Path, name: str) -> Avatar:
    """Load an avatar into host memory; every file is decoded once, several at a time.

    The idle clip is not loaded (`load_idle`): its files are there, and their headers show the right size.

    Raises:
        AvatarError: There is no such avatar, or a file is missing, broken or does not fit the description.
    """
    import torch

    meta, folder = load_meta(avatars_dir, name), _folder_of(avatars_dir, name)
    check_budget(_most_bytes(meta, meta.frames), f"Avatar {meta.name}", AvatarError)
    for problem in file_problems(folder, meta):
        raise AvatarError(f"Avatar {name}: {problem}", _again(name))
    try:
        latents = torch.from_numpy(read_latents(folder, meta.frames, _again(name), meta.latents_sha256))
        frames = _each(range(meta.frames), partial(read_frame, folder, meta))
        patches = _each(range(meta.frames), partial(read_patch, folder, meta))
        _each(range(meta.idle_frames), partial(check_idle, folder, meta))
    except (AvatarError, FileNotFoundError) as error:
        raise AvatarError(f"Avatar {name}: {error}", _again(name)) from error
    return Avatar(meta, frames, patches, latents)


def load_idle(avatars_dir: Path, meta: AvatarMeta) -> Clip:
    """What an avatar shows in silence: its idle clip, or its frames where it has none.

    Raises:
        AvatarError: A file is missing or broken.
    """
    folder = _folder_of(avatars_dir, meta.name)
    read, count = (read_idle, meta.idle_frames) if meta.idle_frames else (read_frame, meta.frames)
    check_budget(count * _frame_bytes(meta), f"What avatar {meta.name} shows in silence", AvatarError)
    try:
        return Clip(_each(range(count), partial(read, folder, meta)), meta.fps)
    except (AvatarError, FileNotFoundError) as error:
        raise AvatarError(f"Avatar {meta.name}: {error}", _again(meta.name)) from error


def measure(avatars_dir: Path, name: str) -> AvatarMemory:
    """What an avatar will take once loaded; reads its masks, not its frames.

    Raises:
        AvatarError: There is no such avatar, or a file is missing or broken.
    """
    meta, folder = load_meta(avatars_dir, name), _folder_of(avatars_dir, name)
    check_budget(_most_bytes(meta, 0), f"Avatar {meta.name}", AvatarError)
    for problem in file_problems(folder, meta):
        raise AvatarError(f"Avatar {name}: {problem}", _again(name))
    try:
        patches = _each(range(meta.frames), partial(read_patch, folder, meta))
        return memory_of(meta, pixels_of(patches))
    except (AvatarError, FileNotFoundError) as error:
        raise AvatarError(f"Avatar {name}: {error}", _again(name)) from error


def latents_format(avatars_dir: Path, name: str) -> LatentsFormat:
    """The number format an avatar's latents are stored in; in memory they are float32.

    Raises:
        AvatarError: There is no such avatar, or its description or latents are broken.
    """
    meta = load_meta(avatars_dir, name)
    return read_format(_folder_of(avatars_dir, name), meta.frames, _again(name))


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
    problems = list(file_problems(folder, meta))
    try:
        read_latents(folder, meta.frames, _again(name), meta.latents_sha256)
    except AvatarError as error:
        problems.append(error.message)
    reads: list[tuple[Callable[[Path, AvatarMeta, int], object], int]] = [
        (read_frame, meta.frames),
        (read_patch, meta.frames),
        (read_idle, meta.idle_frames),
    ]
    for read, count in reads:
        kept = _each(range(count), partial(_complaint, partial(read, folder, meta)))
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
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=avatars_dir))
        folder.rename(aside / folder.name)
        shutil.rmtree(aside)
    except OSError as error:
        raise OutputError(
            f"The avatar {name} in {avatars_dir} cannot be removed: {error.strerror}.",
            "Check its permissions.",
        ) from error


def _frame_bytes(meta: AvatarMeta) -> int:
    return 3 * meta.width * meta.height


def _most_bytes(meta: AvatarMeta, pictures: int) -> int:
    """The most memory that so many frames, all masks and the latents can take, told by the description."""
    masks = sum(box.width * box.height for box in meta.boxes if box is not None)
    return pictures * _frame_bytes(meta) + masks + memory_of(meta, 0).device_bytes


def _again(name: str) -> str:
    return f"Run musetalk avatars verify {quoted(name)}, then prepare or import it again."


def _folder_of(avatars_dir: Path, name: str) -> Path:
    folder = find_folder(avatars_dir, name)
    if folder is None:
        names = list_avatars(avatars_dir)
        there = f"There are: {', '.join(names)}." if names else "There are none; import or prepare one first."
        raise AvatarError(f"There is no avatar {validate_name(name)} in {avatars_dir}.", there)
    return folder


def _each(numbers: Iterable[int], read: Callable[[int], T]) -> list[T]:
    """Read the frames' files in parallel; the first failure by frame number is the one raised."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "avatar") as pool:
        try:
            return list(pool.map(read, numbers))
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
