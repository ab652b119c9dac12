"""Pinned host memory in turn: what describes a batch goes up, and patches come down, without a wait."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.nets.device import event_to_wait_for
from musetalk_cli.types import Image


class PinnedSlots:
    """A fixed number of pinned host buffers, used in turn; each is its batch's until that was fetched.

    One whose batch waits to be fetched is passed over: what is fetched at once, like a face that is made
    again, needs one that is free, and not the next.

    Args:
        count: Buffers.
    """

    def __init__(self, count: int) -> None:
        self._buffers: list[Tensor | None] = [None] * count
        self._described: list[Tensor | None] = [None] * count
        self._events: list[torch.cuda.Event | None] = [None] * count
        self._unread = [False] * count
        self._next = 0
        self._reserved: dict[torch.dtype, int] = {}
        self._spare: dict[tuple[torch.dtype, int], Tensor] = {}

    def reserve(self, size: int, values: int = 0) -> None:
        """Pin for each slot what it will need, so that no batch has to; while another thread sends.

        Pinning takes long and may wait for the device. A slot takes what is new in its turn.

        Args:
            size: Bytes that are sent.
            values: Numbers that describe a batch.
        """
        for dtype, count in ((torch.uint8, size), (torch.int64, values)):
            if count > self._reserved.get(dtype, 0):
                for index in range(len(self._buffers)):
                    self._spare[dtype, index] = torch.empty(count, dtype=dtype, pin_memory=True)
                self._reserved[dtype] = count

    def upload(self, values: NDArray[np.int64], target: Tensor) -> None:
        """Start copying what describes the batch that is sent next.

        Args:
            values: int64, of any shape.
            target: Where to, on the device, of the same shape.

        Raises:
            RuntimeError: Nobody has fetched what any of the slots holds.
        """
        self._turn()
        described = self._spare.pop((torch.int64, self._next), self._described[self._next])
        if described is None or described.numel() < values.size:
            described = torch.empty(values.size, dtype=torch.int64, pin_memory=True)
        self._described[self._next] = described
        view = described[: values.size].view(values.shape)
        view.numpy()[...] = values
        target.copy_(view, non_blocking=True)

    def _turn(self) -> None:
        """Settle which slot is next, and wait until nothing is on its way from it or to it.

        Raises:
            RuntimeError: Nobody has fetched what any of them holds.
        """
        count = len(self._buffers)
        in_turn = (number % count for number in range(self._next, self._next + count))
        found = next((index for index in in_turn if not self._unread[index]), None)
        if found is None:
            raise RuntimeError(f"More batches are on their way than there are pinned slots: {count}.")
        self._next = found
        if (previous := self._events[found]) is not None:
            previous.synchronize()

    def send(self, data: Tensor) -> Callable[[], Image]:
        """Start copying uint8 `[n]` from the device; the returned call waits for it and gives a copy.

        Raises:
            RuntimeError: Nobody has fetched what any of the slots holds.
        """
        self._turn()
        index = self._next
        buffer = self._spare.pop((torch.uint8, index), self._buffers[index])
        if buffer is None or buffer.numel() < data.numel():
            # twice what is needed: batches differ a little in size, and pinning memory is slow
            buffer = torch.empty(2 * data.numel(), dtype=torch.uint8, pin_memory=True)
        self._buffers[index] = buffer
        # only here: where there is no memory to pin, the slot is nobody's
        self._unread[index] = True
        self._next = (index + 1) % len(self._buffers)
        view = buffer[: data.numel()]
        view.copy_(data, non_blocking=True)
        event = event_to_wait_for()
        event.record()
        self._events[index] = event

        def fetch() -> Image:
            event.synchronize()
            image: Image = view.numpy().copy()  # the slot is used again
            self._unread[index] = False
            return image

        return fetch
