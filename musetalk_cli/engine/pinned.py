"""Pinned host memory in turn, through which what is made on CUDA comes down without anybody waiting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from musetalk_cli.types import Image


class PinnedSlots:
    """A fixed number of pinned host buffers, used in turn.

    Args:
        count: Buffers.
    """

    def __init__(self, count: int) -> None:
        self._buffers: list[Tensor | None] = [None] * count
        self._events: list[torch.cuda.Event | None] = [None] * count
        self._next = 0

    def send(self, data: Tensor) -> Callable[[], Image]:
        """Start copying uint8 `[n]` from the device; the returned call waits for it and gives a copy."""
        index = self._next
        self._next = (index + 1) % len(self._buffers)
        if (previous := self._events[index]) is not None:
            previous.synchronize()
        buffer = self._buffers[index]
        if buffer is None or buffer.numel() < data.numel():
            # twice what is needed: batches differ a little in size, and pinning memory is slow
            buffer = torch.empty(2 * data.numel(), dtype=torch.uint8, pin_memory=True)
            self._buffers[index] = buffer
        view = buffer[: data.numel()]
        view.copy_(data, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._events[index] = event

        def fetch() -> Image:
            event.synchronize()
            image: Image = view.numpy().copy()  # the slot is used again
            return image

        return fetch
