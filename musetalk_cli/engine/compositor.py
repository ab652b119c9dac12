"""Faces into frames: resize, sharpen, blend, and the way to host memory.

Two paths with the same four steps. `GpuPath` works on tensors where the faces are; only finished patches
leave the device. `CpuPath` copies the faces to the host once and is the specification. To the engine a path
is an `ImagePath`, whatever its steps are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.drawn import CapturedSteps, Drawn
from musetalk_cli.engine.image_path import Fetch, Picture, Span, Target
from musetalk_cli.engine.pinned import PinnedSlots
from musetalk_cli.engine.uploads import Uploads, places_of
from musetalk_cli.ops import reference, torch_ops
from musetalk_cli.ops.device_tables import kept_tables
from musetalk_cli.ops.drawn import are_finite, levels
from musetalk_cli.types import FACE_SIZE, Box, Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.engine.graphs import Recorder


class StepByStep(ABC):
    """An image path of four steps; each takes what the one before it returned."""

    name: str

    @abstractmethod
    def place(self, avatar: Avatar) -> list[Target | None]:
        """Put an avatar's parts and masks where the steps need them, one per source frame.

        A pass-through frame has none.
        """

    def reserve(self, targets: Sequence[Target], faces: int) -> None:  # noqa: B027 - what keeps no room needs none
        """As `ImagePath.reserve`."""

    @abstractmethod
    def resize(self, faces: Tensor, targets: Sequence[Target]) -> list[Picture]:
        """Bring faces, uint8 `[B, 256, 256, 3]`, to the size of their boxes."""

    @abstractmethod
    def sharpen(self, faces: list[Picture], settings: Sharpen) -> list[Picture]:
        """Unsharp mask of the resized faces."""

    @abstractmethod
    def blend(self, faces: list[Picture], targets: Sequence[Target]) -> list[Picture]:
        """Blend the faces into their parts."""

    @abstractmethod
    def marks(self, faces: Tensor) -> Picture:
        """One mark for each face, bool `[B]` on the device, as a picture that goes down with the patches."""

    @abstractmethod
    def download(self, patches: list[Picture]) -> Fetch:
        """Start the way to host memory."""

    def compose(self, drawn: Drawn, targets: Sequence[Target], sharpen: Sharpen | None, span: Span) -> Fetch:
        """As `ImagePath.compose`; the spans have the names of the steps."""
        pictures = drawn.pictures[: len(targets)]
        return self.compose_faces(lambda: (levels(pictures), are_finite(pictures)), targets, sharpen, span)

    def compose_faces(
        self,
        make: Callable[[], tuple[Tensor, Tensor]],
        targets: Sequence[Target],
        sharpen: Sharpen | None,
        span: Span,
    ) -> Fetch:
        """The same for faces that are levels: uint8 `[B, 256, 256, 3]`, BGR, and bool `[B]`, what is finite.

        Args:
            make: Gives them; timed with the resize.
            targets: As for `compose`.
            sharpen: As for `compose`.
            span: As for `compose`.
        """
        with span("resize"):
            faces, finite = make()
            resized = self.resize(faces, targets)
        if sharpen is not None:
            with span("sharpen"):
                resized = self.sharpen(resized, sharpen)
        with span("blend"):
            patches = self.blend(resized, targets)
        with span("download"):
            return self.download([*patches, self.marks(finite)])

    def capture(self, recorder: Recorder, pictures: Tensor) -> CapturedSteps | None:  # noqa: ARG002
        """None: what is launched depends on the sizes of the faces."""
        return None


class CpuPath(StepByStep):
    """The image steps in OpenCV and numpy."""

    name = "cpu"

    def place(self, avatar: Avatar) -> list[Target | None]:
        """Views of the avatar's frames; nothing is copied."""
        return [
            None
            if patch is None
            else Target(frame[patch.box.slices()], patch.mask, patch.face.shift(-patch.box.x1, -patch.box.y1))
            for frame, patch in zip(avatar.frames, avatar.patches, strict=True)
        ]

    def resize(self, faces: Tensor, targets: Sequence[Target]) -> list[Image]:
        """Copy the faces to the host and resize them as OpenCV does."""
        host = faces.cpu().numpy()
        return [
            reference.gpu_resize(face, (target.face.height, target.face.width))
            for face, target in zip(host, targets, strict=True)
        ]

    def sharpen(self, faces: list[Image], settings: Sharpen) -> list[Image]:
        """Unsharp mask of each face."""
        return [
            reference.gpu_unsharp_mask(face, settings.amount, settings.sigma, settings.threshold)
            for face in faces
        ]

    def blend(self, faces: list[Image], targets: Sequence[Target]) -> list[Image]:
        """Blend each face into its part with PIL's arithmetic."""
        return [
            reference.gpu_image_blending(target.body, face, target.face, target.mask, _whole(target.body))
            for face, target in zip(faces, targets, strict=True)
        ]

    def marks(self, faces: Tensor) -> Image:
        """The marks on the host, where the faces are."""
        marks: Image = faces.to(torch.uint8).cpu().numpy()
        return marks

    def download(self, patches: list[Image]) -> Fetch:
        """Nothing to move."""
        return lambda: patches


class GpuPath(StepByStep):
    """The image steps in tensor operations on one device.

    Args:
        device: Where the faces are.
        slots: Batches that may be on their way to the host at once; a further one waits for the oldest.
        sharpen: How faces will be sharpened; None where they are not.
    """

    name = "gpu"

    def __init__(self, device: torch.device, slots: int = 3, sharpen: Sharpen | None = None) -> None:
        self._device = device
        self._uploads = Uploads(device)
        self._sharpen = sharpen
        self._pinned = PinnedSlots(slots) if device.type == "cuda" else None

    def place(self, avatar: Avatar) -> list[Target | None]:
        """Copy the parts that can change, and their masks, to the device, all of them in one allocation.

        The index tables of every size of face come with them, so that none is copied while frames are made:
        such a copy would wait for the batch before it.
        """
        targets = self._packed([target for target in CpuPath().place(avatar) if target is not None])
        sigma = None if self._sharpen is None else self._sharpen.sigma
        with kept_tables(self._uploads.tensors) as tables:
            for size in {(target.face.height, target.face.width) for target in targets}:
                torch_ops.make_tables((FACE_SIZE, FACE_SIZE), size, sigma, targets[0].body.device)
        placed = (replace(target, tables=tables) for target in targets)
        return [None if patch is None else next(placed) for patch in avatar.patches]

    def reserve(self, targets: Sequence[Target], faces: int) -> None:
        """Pin what their patches need."""
        if self._pinned is not None:
            self._pinned.reserve(faces * (1 + max(target.body.numel() for target in targets)))

    def _packed(self, targets: Sequence[Target]) -> list[Target]:
        """The same targets as views of one buffer on the device."""
        arrays = [array for target in targets for array in (target.body, target.mask)]
        places, _ = places_of(arrays)
        store = self._uploads.pack(arrays)
        views = [
            store[at : at + array.nbytes].view(array.shape) for at, array in zip(places, arrays, strict=True)
        ]
        halves = zip(views[::2], views[1::2], places[::2], places[1::2], strict=True)
        return [
            Target(body, mask, target.face, store, body_at, mask_at)
            for target, (body, mask, body_at, mask_at) in zip(targets, halves, strict=True)
        ]

    def resize(self, faces: Tensor, targets: Sequence[Target]) -> list[Tensor]:
        """Resize the faces, those of one size together."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, target in enumerate(targets):
            groups.setdefault((target.face.height, target.face.width), []).append(index)
        resized: dict[int, Tensor] = {}
        for size, members in groups.items():
            whole = len(members) == len(targets)
            some = faces if whole else torch.stack([faces[index] for index in members])
            resized.update(zip(members, torch_ops.gpu_resize(some, size, layout="BHWC"), strict=True))
        return [resized[index] for index in range(len(targets))]

    def sharpen(self, faces: list[Tensor], settings: Sharpen) -> list[Tensor]:
        """Unsharp mask of each face."""
        return [
            torch_ops.gpu_unsharp_mask(
                face, settings.amount, settings.sigma, settings.threshold, layout="HWC"
            )
            for face in faces
        ]

    def blend(self, faces: list[Tensor], targets: Sequence[Target]) -> list[Tensor]:
        """Blend each face into its part with PIL's arithmetic."""
        return [
            torch_ops.gpu_image_blending(
                target.body, face, target.face, target.mask, _whole(target.body), layout="HWC"
            )
            for face, target in zip(faces, targets, strict=True)
        ]

    def marks(self, faces: Tensor) -> Tensor:
        """The marks where they are; nobody waits for them."""
        return faces.to(torch.uint8)

    def download(self, patches: list[Tensor]) -> Fetch:
        """One copy for all patches: asynchronous through pinned memory on CUDA."""
        shapes = [tuple(patch.shape) for patch in patches]
        flat = torch.cat([patch.flatten() for patch in patches])
        if self._pinned is None:
            return lambda: split(flat.cpu().numpy(), shapes)
        fetch = self._pinned.send(flat)
        return lambda: split(fetch(), shapes)


def _whole(image: Picture) -> Box:
    return Box(0, 0, image.shape[1], image.shape[0])


def split(flat: Image, shapes: Sequence[tuple[int, ...]]) -> list[Image]:
    """Views of pictures of such shapes that lie one after the other."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
