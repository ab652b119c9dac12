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
from musetalk_cli.engine.compositor import CpuPath, GpuPath, split
from musetalk_cli.engine.drawn import CapturedSteps, Drawn
from musetalk_cli.engine.image_path import Fetch, ImagePath, Span, Target
from musetalk_cli.engine.pinned import PinnedSlots
from musetalk_cli.engine.uploads import Uploads, places_of
from musetalk_cli.errors import first_line
from musetalk_cli.nets.device import conv_layout
from musetalk_cli.ops.triton_ops import FIELDS, MOST_PROGRAMS, NOWHERE, Compositor, FaceDescriptor, programs
from musetalk_cli.types import FACE_SIZE, Box, Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.engine.graphs import Recorder

log = logging.getLogger(__name__)

OUT, MARKS = FaceDescriptor._fields.index("out"), FaceDescriptor._fields.index("marks")
UNLIKE = 1e-3
"""Share of the values of a trial that may differ from the CPU's: some do where a sharpened one is rounded."""


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """Where one face goes.

    Attributes:
        descriptor: The same for the launch; where patch and marks go is left open.
        store: uint8 `[n]` on the device, which holds what `descriptor` points to.
    """

    descriptor: FaceDescriptor
    store: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the patch."""
        return self.descriptor.height, self.descriptor.width, 3


class FusedPath:
    """Round, resize, sharpen and blend in one launch.

    What differs from batch to batch, also where its patches go, stands in a table on the device. It is filled
    before the launch, which can so be part of a CUDA graph. The device does what it is given in order, so
    there is one table for all batches that are launched singly, and one for each graph.

    Args:
        device: Where the faces are.
        slots: Batches that may be on their way to the host at once; a further one waits for the oldest.
        sharpen: How faces will be sharpened; None where they are not.

    Raises:
        InputError: The blur is too wide for one launch.

    Attributes:
        table: int64 `[most faces, FIELDS]` on the device, a `FaceDescriptor` for each face of a batch without
            a graph.
        out: uint8 `[n]` on the device: marks, then patches. It changes where an avatar came that needs more.
    """

    name = "gpu"

    def __init__(self, device: torch.device, slots: int = 3, sharpen: Sharpen | None = None) -> None:
        self._device = device
        self._compositor = Compositor(device, sharpen)
        self._uploads = Uploads(device)
        self._pinned = PinnedSlots(slots) if device.type == "cuda" else None
        self.table = torch.empty(0, FIELDS, dtype=torch.int64, device=device)
        self.out = self._reserved = torch.empty(0, dtype=torch.uint8, device=device)

    def place(self, avatar: Avatar) -> list[Spot | None]:
        """Copy the parts that can change, their masks and the tables of their sizes to the device."""
        spots = iter(self.put([target for target in CpuPath().place(avatar) if target is not None]))
        return [None if patch is None else next(spots) for patch in avatar.patches]

    def reserve(self, targets: Sequence[Spot], faces: int) -> None:
        """Allocate what their patches need, on the device and pinned; the next batch takes it."""
        size = faces * (MOST_PROGRAMS + max(math.prod(target.shape) for target in targets))
        with torch.inference_mode(False):
            if len(self._reserved) < size:
                self._reserved = torch.empty(size, dtype=torch.uint8, device=self._device)
        if self._pinned is not None:
            self._pinned.reserve(size, faces * FIELDS)

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
                    *(0, 0, target.body.shape[1], target.body.shape[0]),
                    *(-target.face.x1, -target.face.y1, target.face.width, target.face.height),
                ),
                store,
            )
            for number, target in enumerate(targets)
        ]

    def compose(
        self,
        drawn: Drawn,
        targets: Sequence[Spot],
        sharpen: Sharpen | None,  # noqa: ARG002 - as the launch was made for
        span: Span,
    ) -> Fetch:
        """As `ImagePath.compose`, in two spans: `compose` and `download`."""
        with span("compose"):
            if drawn.steps is None:
                table = self._table(len(targets))
                shapes = self.describe(targets, table)
                self._compositor(table, drawn.pictures)
            else:
                shapes = self.describe(targets, drawn.steps.table)
                drawn.steps.graph.replay()
        with span("download"):
            return self.download(shapes)

    def capture(self, recorder: Recorder, pictures: Tensor) -> CapturedSteps:
        """As `ImagePath.capture`."""
        table = torch.zeros(len(pictures), FIELDS, dtype=torch.int64, device=self._device)
        graph, _ = recorder.capture(lambda: self._compositor(table, pictures))
        return CapturedSteps(table, graph)

    def _table(self, faces: int) -> Tensor:
        """Rows for so many faces."""
        with torch.inference_mode(False):
            if len(self.table) < faces:
                self.table = torch.empty(faces, FIELDS, dtype=torch.int64, device=self._device)
        return self.table[:faces]

    def describe(self, targets: Sequence[Spot], table: Tensor) -> list[tuple[int, ...]]:
        """Start the way of a batch's description to a table.

        Args:
            targets: Where its faces go.
            table: int64 `[B, FIELDS]` on the device; rows beyond the targets go nowhere.

        Returns:
            Shapes of what the launch will leave in `out`: the marks of all faces, and their patches.
        """
        marks = programs(len(table))
        shapes = [(len(targets), marks), *(target.shape for target in targets)]
        *begins, size = np.cumsum([math.prod(shape) for shape in shapes])
        with torch.inference_mode(False):
            if len(self.out) < len(self._reserved):
                self.out = self._reserved
            if len(self.out) < size:
                # twice what is needed: batches differ a little in size
                self.out = torch.empty(2 * int(size), dtype=torch.uint8, device=self._device)
        at = self.out.data_ptr()
        rows = np.array([NOWHERE] * len(table), np.int64)
        rows[: len(targets)] = [target.descriptor for target in targets]
        rows[: len(targets), OUT] = at + np.array(begins)
        rows[: len(targets), MARKS] = at + marks * np.arange(len(targets))
        if self._pinned is None:
            table.copy_(torch.from_numpy(rows))
        else:
            self._pinned.upload(rows, table)
        return shapes

    def download(self, shapes: Sequence[tuple[int, ...]]) -> Fetch:
        """Start the way of marks and patches to host memory.

        Args:
            shapes: As `describe` gives them.
        """
        data = self.out[: sum(map(math.prod, shapes))]
        fetch: Callable[[], Image] = data.clone().numpy if self._pinned is None else self._pinned.send(data)

        def fetch_all() -> list[Image]:
            marks, *patches = split(fetch(), shapes)
            return [*patches, marks.min(1)]

        return fetch_all


def image_path(
    device: torch.device, slots: int, sharpen: Sharpen | None, dtype: torch.dtype = torch.float32
) -> ImagePath:
    """The path for faces on a device: one launch where that works, else tensor operations, which is said.

    Args:
        device: Where the faces are.
        slots: Batches that may be on their way to the host at once.
        sharpen: How faces will be sharpened; None where they are not.
        dtype: In which the networks draw them; a face that is made again is in fp32.
    """
    if device.type == "cuda":
        try:
            path = FusedPath(device, slots, sharpen)
            for each in {dtype, torch.float32}:
                _try(path, device, sharpen, each)
        except Exception as error:  # a compiler, a driver and a C compiler stand behind it: anything may fail
            log.warning("The image steps are not one launch but many on this GPU: %s", first_line(error))
        else:
            return path
    return GpuPath(device, slots, sharpen)


def _try(path: FusedPath, device: torch.device, sharpen: Sharpen | None, dtype: torch.dtype) -> None:
    """Compose two faces, and compare.

    Raises:
        RuntimeError: They are not the CPU's.
    """
    random = np.random.default_rng(0)
    # some beyond white and black
    values = random.uniform(-1.1, 1.1, (2, 3, FACE_SIZE, FACE_SIZE)).astype(np.float32)
    drawn = torch.from_numpy(values).to(dtype, memory_format=conv_layout(device, dtype))
    drawn[1, 2, 3, 4] = math.nan
    body = random.integers(0, 256, (2, 70, 70, 3), np.uint8)
    mask = random.integers(0, 256, (2, 70, 70), np.uint8)
    targets = [
        Target(body[0], mask[0], Box(-3, 5, 60, 80)),
        Target(body[1][:40], mask[1][:40], Box(4, -9, 50, 41)),
    ]
    expected = CpuPath().compose(Drawn(drawn), targets, sharpen, lambda _: nullcontext())()
    made = path.compose(Drawn(drawn.to(device)), path.put(targets), sharpen, lambda _: nullcontext())()
    differ = np.concatenate([(one != other).ravel() for one, other in zip(made, expected, strict=True)])
    if differ.mean() > UNLIKE:
        raise RuntimeError(f"{differ.mean():.1%} of the values it makes are not those of the CPU.")
