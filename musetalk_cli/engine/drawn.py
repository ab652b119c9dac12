"""Faces as the networks leave them, on their way to the image steps."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class CapturedSteps(NamedTuple):
    """The image steps of one batch's faces as a CUDA graph, which reads them where another graph leaves them.

    Attributes:
        table: int64 `[B, FIELDS]` on the device: where the faces go, to be filled before a replay.
        graph: The graph.
    """

    table: Tensor
    graph: torch.cuda.CUDAGraph


class Drawn(NamedTuple):
    """Faces of a batch as the decoder drew them.

    Attributes:
        pictures: `[B, 3, 256, 256]` in the networks' format, RGB; those after the batch's own only fill it.
            A graph's are overwritten by the next batch: what reads them is to be given to the device before.
        steps: The image steps that were captured for them, where they are a graph's and it has some.
    """

    pictures: Tensor
    steps: CapturedSteps | None = None
