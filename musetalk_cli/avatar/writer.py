"""Writes an avatar beside its final place and puts it there complete, or leaves nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.avatar.data import AvatarMeta, Json, validate_name
from musetalk_cli.avatar.latents import LatentsFormat, to_stored, write_latents
from musetalk_cli.errors import AvatarError, OutputError
from musetalk_cli.media.stills import write_png
from musetalk_cli.types import Box, Image

META_FILE, FRAMES_DIR, MASKS_DIR = "avatar.json", "full_imgs", "masks"


def image_name(number: int) -> str:
    """Name of the file that holds forward frame `number`."""
    return f"{number:08d}.png"


class AvatarWriter:
    """Takes an avatar frame by frame; only `finish` makes it visible.

    Use it in a `with` block: leaving the block without `finish`, by an error or an interrupt, removes
    everything written. What a killed process left of the same avatar is removed on entry.

    Args:
        avatars_dir: Folder of avatars; made if it is not there.
        name: Name of the new avatar.
        overwrite: Replace an avatar of that name; it stays in place until the new one is complete.
        latents: The number format the latents are stored in; fp16 takes half the space.

    Raises:
        AvatarError: The name is not allowed, or taken without `overwrite`.
        OutputError: The folder cannot be written.
    """

    def __init__(
        self, avatars_dir: Path, name: str, *, overwrite: bool = False, latents: LatentsFormat = "fp32"
    ) -> None:
        self._target = avatars_dir / validate_name(name)
        self._overwrite = overwrite
        self._format = latents
        self._folder: Path | None = None
        self._lock: int | None = None
        self._size: tuple[int, int] | None = None
        self._boxes: list[Box] = []
        self._crop_boxes: list[Box] = []
        self._latents: list[NDArray[np.floating]] = []
        self._check_free()

    def _check_free(self) -> None:
        if os.path.lexists(self._target) and not self._overwrite:
            raise AvatarError(
                f"There is already an avatar {self._target.name} in {self._target.parent}.",
                "Pass --overwrite to replace it, or choose another name.",
            )
        if os.path.lexists(self._target) and not (self._target / META_FILE).is_file():
            raise AvatarError(
                f"{self._target} is not an avatar and is not replaced.",
                "Choose another name or move it away.",
            )

    def __enter__(self) -> AvatarWriter:
        parent = self._target.parent
        prefix = f".{self._target.name}.new-"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(parent, prefix)
            self._folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            self._folder.chmod(0o755)
            self._lock = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            (self._folder / FRAMES_DIR).mkdir()
            (self._folder / MASKS_DIR).mkdir()
        except OSError as error:
            self._discard()
            raise OutputError(
                f"Avatars cannot be written to {parent}: {error.strerror}.", "Choose another --avatars-dir."
            ) from error
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._discard()

    def add(self, frame: Image, mask: Image, box: Box, crop_box: Box) -> None:
        """Write the next forward frame.

        Args:
            frame: uint8 `[height, width, 3]`, BGR; every one of the same size.
            mask: uint8 `[crop_box.height, crop_box.width]`.
            box: The face's box, inside the frame.
            crop_box: The crop's box; may leave the frame.

        Raises:
            AvatarError: The frame, the mask or a box does not fit the others.
            OutputError: A file cannot be written.
        """
        number = len(self._boxes)
        size = (frame.shape[1], frame.shape[0])
        self._size = self._size or size
        if size != self._size:
            raise AvatarError(
                f"Frame {number} is {size[0]}x{size[1]}, but frame 0 is {self._size[0]}x{self._size[1]}."
            )
        if box.empty or box.clamp(*size) != box:
            raise AvatarError(f"The face's box of frame {number}, {list(box)}, is not inside the frame.")
        if mask.shape != (crop_box.height, crop_box.width):
            raise AvatarError(
                f"The mask of frame {number} is {mask.shape[1]}x{mask.shape[0]}, "
                f"but its crop box is {crop_box.width}x{crop_box.height}."
            )
        folder = self._require_folder()
        write_png(folder / FRAMES_DIR / image_name(number), frame)
        write_png(folder / MASKS_DIR / image_name(number), mask)
        self._boxes.append(box)
        self._crop_boxes.append(crop_box)

    def add_latents(self, latents: NDArray[np.float32]) -> None:
        """Take the latents of the next frames: float32 `[k, 8, 32, 32]`, finite.

        Raises:
            AvatarError: They have another shape, hold a number that is not finite, or one that is too large
                for the format they are stored in.
        """
        first = sum(len(batch) for batch in self._latents)
        self._latents.append(to_stored(latents, self._format, first))

    def finish(
        self,
        *,
        fps: Fraction,
        parameters: Mapping[str, Json],
        model: Mapping[str, Json],
        source: Mapping[str, Json],
        skipped_frames: tuple[int, ...] = (),
    ) -> AvatarMeta:
        """Complete the avatar and put it in its place.

        Raises:
            AvatarError: Frames and latents differ in number, there are none, or the name was taken.
            OutputError: A file cannot be written.
        """
        count = sum(len(batch) for batch in self._latents)
        if not self._boxes or count != len(self._boxes) or self._size is None:
            raise AvatarError(
                f"An avatar of {len(self._boxes)} frames and {count} latents cannot be written."
            )
        width, height = self._size
        meta = AvatarMeta(
            self._target.name, fps, width, height, tuple(self._boxes), tuple(self._crop_boxes),
            parameters, model, source, skipped_frames,
        )  # fmt: skip
        AvatarMeta.from_json(meta.to_json())
        folder = self._require_folder()
        try:
            write_latents(folder, self._latents)
            (folder / META_FILE).write_text(meta.to_json(), encoding="utf-8")
            self._put_in_place(folder)
        except OSError as error:
            raise OutputError(
                f"The avatar cannot be written to {self._target}: {error.strerror}.",
                "Free some space or choose another --avatars-dir.",
            ) from error
        return meta

    def _put_in_place(self, folder: Path) -> None:
        self._check_free()
        if not os.path.lexists(self._target):
            folder.rename(self._target)
            self._folder = None
            return
        aside = Path(tempfile.mkdtemp(prefix=f".{self._target.name}.old-", dir=self._target.parent))
        old = aside / self._target.name
        try:
            self._target.rename(old)
            try:
                folder.rename(self._target)
            except BaseException:
                old.rename(self._target)
                raise
            self._folder = None
        finally:
            if os.path.lexists(self._target):
                shutil.rmtree(aside, ignore_errors=True)

    def _require_folder(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the writer is not open")
        return self._folder

    def _discard(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove folders whose writer is gone: a living one holds a lock on its folder."""
    for folder in parent.glob(f"{prefix}*"):
        if folder.is_symlink() or not folder.is_dir():
            continue
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(handle)
