"""The image steps of a batch in one launch on CUDA, from what the decoder drew.

`musetalk_cli.ops.drawn` and `musetalk_cli.ops.reference` say what must come out.

Needs Triton, which PyTorch for CUDA brings with it, and which is imported at the first use. Triton builds its
launcher with a C compiler.

Agreement: a face's levels are rounded as there, and resize and blend repeat OpenCV's and PIL's integers
exactly. The blur is summed in float32 in another order than OpenCV's, so that a sharpened value may be one
level off where it is rounded, or be sharpened or not where its detail is at the threshold: about one value in
a million each.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.config import Sharpen
from musetalk_cli.errors import InputError
from musetalk_cli.ops.tables import fixed_point, gaussian, kernel_size, linear_taps, reflected
from musetalk_cli.types import FACE_SIZE

TILE = 32
"""Rows and columns that a program computes, with what the blur needs around its own; a power of 2."""
MOST_TAPS = 25
"""Of a blur: more would leave a tile fewer than 8 rows and columns of its own."""
WARPS = 8
PROGRAMS, MOST_PROGRAMS = 512, 64
"""About how many a launch has, which is a few for each multiprocessor, and how many for one face at the most.

They are as many for all sizes of faces, each of which does several tiles of a large one, so that a launch in
a CUDA graph fits any batch.
"""
CHECKED = 4096
"""Values of a face that a program looks at together, to see whether they are finite."""


class FaceDescriptor(NamedTuple):
    """Where one face of a batch goes, all whole numbers.

    Attributes:
        body: Address on the device of the part of the source frame, uint8 `[height, width, 3]`.
        mask: Address of its mask, uint8 `[height, width]`.
        columns: Address of `Compositor.table` for the face's width.
        rows: The same for its height.
        out: Address where its patch goes, uint8 `[height, width, 3]`.
        marks: Address where its marks go, a byte from each of its programs: 1 where all values that it looked
            at are finite. 0 is nowhere: the row only fills a batch.
        width: Of the patch, in pixels.
        height: Of the patch.
        left: Column of the face at which the patch begins; negative where it begins before the face.
        top: Row of the face at which the patch begins.
        face_width: Of the resized face.
        face_height: Of the resized face.
    """

    body: int
    mask: int
    columns: int
    rows: int
    out: int
    marks: int
    width: int
    height: int
    left: int
    top: int
    face_width: int
    face_height: int


FIELDS = len(FaceDescriptor._fields)
NOWHERE = FaceDescriptor(*[0] * FIELDS)
"""Of a face that only fills a batch: nothing is read of it, and nothing is written."""


def programs(faces: int) -> int:
    """How many programs each face of a batch has, and so how many marks."""
    return max(1, min(MOST_PROGRAMS, PROGRAMS // faces))


def kernels() -> ModuleType:
    """The kernels; ImportError where there is no Triton."""
    from musetalk_cli.ops import compose_kernels

    return compose_kernels


class Compositor:
    """Puts the faces of a batch into their parts, in one launch.

    Args:
        device: Where the faces are.
        sharpen: Unsharp mask of the resized faces, or None.

    Raises:
        InputError: The blur is wider than a tile can be.
    """

    def __init__(self, device: torch.device, sharpen: Sharpen | None) -> None:
        blurs = sharpen is not None and sharpen.amount > 0
        taps = kernel_size(sharpen.sigma, 4) if sharpen and blurs else 1
        if taps > MOST_TAPS:
            raise InputError(f"A blur of {taps} rows and columns is too wide for one launch.")
        kernel = gaussian(sharpen.sigma, 4) if sharpen and blurs else (1.0,)
        self._radius = taps // 2
        self._weights = torch.tensor(kernel, dtype=torch.float32).to(device)
        # a whole number would be of another type to the kernel
        self._amount = float(sharpen.amount) if sharpen else 0.0
        self._threshold = float(sharpen.threshold) if sharpen else 0.0

    def table(self, size: int, *, columns: bool) -> NDArray[np.int64]:
        """How a side of a face becomes one of another size, with what the blur needs beyond its edges.

        Args:
            size: The side of the resized face, in pixels.
            columns: The side is its width, and not its height.

        Returns:
            `[size + 2 * radius]`: neighbours and weights of each place, 16 bits each.
        """
        sides, weights = linear_taps(FACE_SIZE, size, columns)
        first, second = sides
        one, other = fixed_point(weights).astype(np.int64)
        entries: NDArray[np.int64] = first | second << 16 | one << 32 | other << 48
        return entries[reflected(size, self._radius)]

    def __call__(self, batch: Tensor, drawn: Tensor) -> None:
        """Round to levels, resize, sharpen and blend, and write patches and marks.

        Nothing is read on the host, so that a CUDA graph can hold the launch.

        Args:
            batch: int64 `[B, FIELDS]`, a `FaceDescriptor` for each face; on the device, as all tensors here.
            drawn: `[B, 3, 256, 256]`, RGB, in float16, bfloat16 or float32, as a decoder leaves it. One that
                is neither contiguous nor channels-last is copied first.
        """
        in_place = drawn.is_contiguous() or drawn.is_contiguous(memory_format=torch.channels_last)
        faces = drawn if in_place else drawn.contiguous()
        kernels().compose[(programs(len(batch)), len(batch))](
            *(batch, faces, self._weights, self._amount, self._threshold),
            SIDE=FACE_SIZE,
            FIELDS=FIELDS,
            TAPS=2 * self._radius + 1,
            TILE=TILE,
            CHECKED=CHECKED,
            PLANES=faces.is_contiguous(),
            num_warps=WARPS,
            # nothing is fetched ahead: it would be kept in shared memory, several times as much
            num_stages=1,
            enable_fp_fusion=False,
        )
