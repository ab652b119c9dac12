"""The image steps of a batch in one launch on CUDA; `musetalk_cli.ops.reference` says what must come out.

Needs Triton, which PyTorch for CUDA brings with it, and which is imported at the first use. Triton builds its
launcher with a C compiler.

Agreement: resize and blend repeat OpenCV's and PIL's integers exactly. The blur is summed in float32 in
another order than OpenCV's, so that a sharpened value may be one level off where it is rounded, or be
sharpened or not where its detail is at the threshold: about one value in a million each.
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


class FaceDescriptor(NamedTuple):
    """Where one face of a batch goes, all whole numbers.

    Attributes:
        body: Address on the device of the part of the source frame, uint8 `[height, width, 3]`.
        mask: Address of its mask, uint8 `[height, width]`.
        columns: Address of `Compositor.table` for the face's width.
        rows: The same for its height.
        out: Where the patch begins in the output, in bytes.
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
    width: int
    height: int
    left: int
    top: int
    face_width: int
    face_height: int


FIELDS = len(FaceDescriptor._fields)
NOWHERE = FaceDescriptor(*[0] * FIELDS)
"""Of a face that only fills a batch: nothing is written but its mark."""


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

    def tiles(self, width: int, height: int) -> int:
        """How many programs a patch needs."""
        step = TILE - 2 * self._radius
        return -(-width // step) * -(-height // step)

    def __call__(self, batch: Tensor, faces: Tensor, finite: Tensor, out: Tensor, tiles: int) -> None:
        """Resize, sharpen and blend, and write patches and marks.

        Nothing is read on the host, and no memory is taken, so that a CUDA graph can hold the launch.

        Args:
            batch: int64 `[B, FIELDS]`, a `FaceDescriptor` for each face; on the device, as all tensors here.
            faces: uint8 `[B, 256, 256, 3]`, contiguous.
            finite: bool `[B]`, a mark for each face.
            out: uint8 `[n]`; the marks, 0 or 1, go to its first B bytes.
            tiles: As many as the largest patch needs, or more.
        """
        kernels().compose[(tiles, len(batch))](
            *(batch, faces, finite, self._weights, out, self._amount, self._threshold),
            SIDE=FACE_SIZE,
            FIELDS=FIELDS,
            TAPS=2 * self._radius + 1,
            TILE=TILE,
            num_warps=WARPS,
            enable_fp_fusion=False,
        )
