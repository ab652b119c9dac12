"""The image path of a GPU that has Triton: all steps of a batch in one launch, and one copy to the host."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath, Fetch, GpuPath, ImagePath, Span, Target, split
from musetalk_cli.engine.pinned import PinnedSlots
from musetalk_cli.engine.uploads import Uploads, places_of
from musetalk_cli.errors import first_line
from musetalk_cli.ops.triton_ops import FIELDS, NOWHERE, Compositor, FaceDescriptor
from musetalk_cli.types import FACE_SIZE, Box, Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar

log = logging.getLogger(__name__)

OUT = FaceDescriptor._fields.index("out")
UNLIKE = 1e-3
"""Share of the values of a trial that may differ from the CPU's: some do where a sharpened one is rounded."""


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """Where one face goes.

    Attributes:
        descriptor: The same for the launch; where the patch begins in the output is left open.
        store: uint8 `[n]` on the device, which holds what `descriptor` points to.
    """

    descriptor: FaceDescriptor
    store: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the patch."""
        return self.descriptor.height, self.descriptor.width, 3


class FusedPath:
    """Resize, sharpen and blend in one launch.

    What a launch reads and writes lies in buffers that stay where they are, so that a CUDA graph can hold it:
    they change only where a batch needs more than any before. The device does what it is given in order, so
    one of each is enough.

    Args:
        device: Where the faces are.
        slots: Batches that may be on their way to the host at once; a further one waits for the oldest.
        sharpen: How faces will be sharpened; None where they are not.

    Raises:
        InputError: The blur is too wide for one launch.

    Attributes:
        table: int64 `[most faces, FIELDS]` on the device, a `FaceDescriptor` for each face of the batch.
        out: uint8 `[n]` on the device: marks, then patches.
    """

    name = "gpu"

    def __init__(self, device: torch.device, slots: int = 3, sharpen: Sharpen | None = None) -> None:
        self._device = device
        self._compositor = Compositor(device, sharpen)
        self._uploads = Uploads(device)
        self._pinned = PinnedSlots(slots) if device.type == "cuda" else None
        self.table = torch.empty(0, FIELDS, dtype=torch.int64, device=device)
        self.out = torch.empty(0, dtype=torch.uint8, device=device)

    def place(self, avatar: Avatar) -> list[Spot | None]:
        """Copy the parts that can change, their masks and the tables of their sizes to the device."""
        spots = iter(self.put([target for target in CpuPath().place(avatar) if target is not None]))
        return [None if patch is None else next(spots) for patch in avatar.patches]

    def reserve(self, targets: Sequence[Spot], faces: int) -> None:
        """Pin what their patches need."""
        if self._pinned is not None:
            largest = max(math.prod(target.shape) for target in targets)
            self._pinned.reserve(faces * (1 + largest), faces * FIELDS)

    def put(self, targets: Sequence[Target]) -> list[Spot]:
        """Copy the CPU's targets to the device, in one allocation."""
        sides = [(target.face.width, True) for target in targets]
        sides += [(target.face.height, False) for target in targets]
        tables = {side: self._compositor.table(side[0], columns=side[1]) for side in sides}
        arrays = [array for target in targets for array in (target.body, target.mask)]
        store = self._uploads.pack([*arrays, *tables.values()])
        begins, _ = places_of([*arrays, *tables.values()])
        at = [store.data_ptr() + begin for begin in begins]
        table_at = dict(zip(tables, at[len(arrays) :], strict=True))
        return [
            Spot(
                FaceDescriptor(
                    *(at[2 * number], at[2 * number + 1]),
                    *(table_at[target.face.width, True], table_at[target.face.height, False]),
                    *(0, target.body.shape[1], target.body.shape[0]),
                    *(-target.face.x1, -target.face.y1, target.face.width, target.face.height),
                ),
                store,
            )
            for number, target in enumerate(targets)
        ]

    def compose(
        self,
        faces: Tensor,
        finite: Tensor,
        targets: Sequence[Spot],
        sharpen: Sharpen | None,  # noqa: ARG002 - as the launch was made for
        span: Span,
    ) -> Fetch:
        """As `ImagePath.compose`, in two spans: `compose` and `download`."""
        with span("compose"):
            size = self.describe(targets, len(faces))
            self.launch(faces, finite, max(self.tiles(target) for target in targets))
        with span("download"):
            return self.download(size, [(len(faces),), *(target.shape for target in targets)])

    def tiles(self, target: Spot) -> int:
        """How many programs the patch of a target needs."""
        return self._compositor.tiles(target.descriptor.width, target.descriptor.height)

    def describe(self, targets: Sequence[Spot], faces: int) -> int:
        """Start the way of a batch's description to `table`.

        Args:
            targets: Where its faces go.
            faces: How many there are; those beyond the targets fill the batch and go nowhere.

        Returns:
            Bytes of `out` that the batch fills.
        """
        begins = np.cumsum([faces, *(math.prod(target.shape) for target in targets)])
        rows = np.array([NOWHERE] * faces, np.int64)
        rows[: len(targets)] = [target.descriptor for target in targets]
        rows[: len(targets), OUT] = begins[:-1]
        size = int(begins[-1])
        with torch.inference_mode(False):
            if len(self.table) < faces:
                self.table = torch.empty(faces, FIELDS, dtype=torch.int64, device=self._device)
            if len(self.out) < size:
                # twice what is needed: batches differ a little in size
                self.out = torch.empty(2 * size, dtype=torch.uint8, device=self._device)
        table = self.table[:faces]
        if self._pinned is None:
            table.copy_(torch.from_numpy(rows))
        else:
            self._pinned.upload(rows, table)
        return size

    def launch(self, faces: Tensor, finite: Tensor, tiles: int) -> None:
        """Compose the batch that `table` describes into `out`; this is what a CUDA graph may hold.

        Args:
            faces: uint8 `[B, 256, 256, 3]`, contiguous.
            finite: bool `[B]`.
            tiles: As many as the largest patch needs, or more.
        """
        self._compositor(self.table[: len(faces)], faces, finite, self.out, tiles)

    def download(self, size: int, shapes: Sequence[tuple[int, ...]]) -> Fetch:
        """Start the way of marks and patches to host memory.

        Args:
            size: Bytes of them all.
            shapes: Of the marks, and of every patch.
        """
        data = self.out[:size]
        fetch: Callable[[], Image] = data.clone().numpy if self._pinned is None else self._pinned.send(data)

        def fetch_all() -> list[Image]:
            marks, *patches = split(fetch(), shapes)
            return [*patches, marks]

        return fetch_all


def image_path(device: torch.device, slots: int, sharpen: Sharpen | None) -> ImagePath:
    """The path for faces on a device: one launch where that works, else tensor operations, which is said.

    Args:
        device: Where the faces are.
        slots: Batches that may be on their way to the host at once.
        sharpen: How faces will be sharpened; None where they are not.
    """
    if device.type == "cuda":
        try:
            path = FusedPath(device, slots, sharpen)
            _try(path, device, sharpen)
        except Exception as error:  # a compiler, a driver and a C compiler stand behind it: anything may fail
            log.warning("The image steps are not one launch but many on this GPU: %s", first_line(error))
        else:
            return path
    return GpuPath(device, slots, sharpen)


def _try(path: FusedPath, device: torch.device, sharpen: Sharpen | None) -> None:
    """Compose two faces, and compare.

    Raises:
        RuntimeError: They are not the CPU's.
    """
    random = np.random.default_rng(0)
    faces, body = (random.integers(0, 256, (2, side, side, 3), np.uint8) for side in (FACE_SIZE, 70))
    mask = random.integers(0, 256, (2, 70, 70), np.uint8)
    targets = [
        Target(body[0], mask[0], Box(-3, 5, 60, 80)),
        Target(body[1][:40], mask[1][:40], Box(4, -9, 50, 41)),
    ]
    given, finite = torch.from_numpy(faces), torch.tensor([True, False])
    expected = CpuPath().compose(given, finite, targets, sharpen, lambda _: nullcontext())()
    made = path.compose(
        given.to(device), finite.to(device), path.put(targets), sharpen, lambda _: nullcontext()
    )()
    differ = np.concatenate([(one != other).ravel() for one, other in zip(made, expected, strict=True)])
    if differ.mean() > UNLIKE:
        raise RuntimeError(f"{differ.mean():.1%} of the values it makes are not those of the CPU.")
