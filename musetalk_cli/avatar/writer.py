"""Writes an avatar whose frames, masks and boxes come one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.avatar.description import AvatarMeta, Json
from musetalk_cli.avatar.latents import LATENTS_FILE, LatentsFile, to_stored
from musetalk_cli.avatar.layout import FRAMES_DIR, MASKS_DIR, LatentsFormat, image_name
from musetalk_cli.avatar.workspace import Workspace
from musetalk_cli.errors import AvatarError, OutputError
from musetalk_cli.media.digest import digest_of
from musetalk_cli.media.stills import write_png
from musetalk_cli.types import Box, Image


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
        self._workspace = Workspace(avatars_dir, name, overwrite=overwrite)
        self._format = latents
        self._size: tuple[int, int] | None = None
        self._boxes: list[Box] = []
        self._crop_boxes: list[Box] = []
        self._latents: list[NDArray[np.floating]] = []

    def __enter__(self) -> AvatarWriter:
        self._workspace.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workspace.__exit__(kind, error, trace)

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
        folder = self._workspace.folder
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
            self._workspace.name, fps, width, height, tuple(self._boxes), tuple(self._crop_boxes),
            parameters, model, source,
        )  # fmt: skip
        AvatarMeta.from_json(meta.to_json())
        try:
            with LatentsFile(self._workspace.folder, count, self._format) as file:
                first = 0
                for batch in self._latents:
                    file.write(first, batch)
                    first += len(batch)
            meta = replace(meta, latents_sha256=digest_of([self._workspace.folder / LATENTS_FILE]))
        except OSError as error:
            raise OutputError(
                f"The avatar cannot be written to {self._workspace.target}: {error.strerror}.",
                "Free some space or choose another --avatars-dir.",
            ) from error
        self._workspace.publish(meta.to_json())
        return meta
