"""The audio encoder's forward as a CUDA graph: a hundred launches become three."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.nets.staging import Staging, size_of, views
from musetalk_cli.types import Samples

Forward = Callable[[Tensor, Tensor], Tensor]
"""Windows and the rows that are needed to those rows, as `AudioEncoder.forward`."""
Record = Callable[[Callable[[], Tensor]], tuple[torch.cuda.CUDAGraph, Tensor]]
"""Captures some work: a graph, and what it gives, which has no numbers before the first replay."""


class GraphedForward:
    """The forward for so many windows of one length, of which so many rows each are needed.

    Args:
        record: Captures the graph.
        forward: What is captured.
        staging: Copies what comes to the device.
        waves: float32 `[B, 320 * N]`; later ones have the same shape.
        rows: int64 `[B, m]`, the needed rows, likewise.

    Raises:
        RuntimeError: It cannot be captured.

    Attributes:
        count: Rows of each window that it gives.
    """

    def __init__(
        self,
        record: Record,
        forward: Forward,
        staging: Staging,
        waves: Samples,
        rows: NDArray[np.int64],
    ) -> None:
        self.count = rows.shape[1]
        self._staging = staging
        # where the graph reads: zeros are sound and rows too
        self._inputs = torch.zeros(size_of(waves, rows), dtype=torch.uint8, device=staging.device)
        given = views(self._inputs, waves, rows)
        self._graph, self._found = record(lambda: forward(*given))

    def __call__(self, waves: Samples, rows: NDArray[np.int64]) -> Tensor:
        """As the forward; what it gives is the caller's."""
        self._staging(waves, rows, target=self._inputs)
        self._graph.replay()
        # the next replay of any graph overwrites it, and rows wait until their frames are made
        return self._found.clone()
