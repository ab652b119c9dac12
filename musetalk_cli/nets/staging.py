"""What is small and comes often, on its way to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.nets.device import event_to_wait_for

BUFFERS = 4
"""How many copies may be on their way before one is waited for."""
ALIGNED = 16
"""Every array begins at a multiple of so many bytes."""


@dataclass(slots=True, eq=False)
class _Slot:
    """A pinned buffer, uint8 `[n]`, and the mark behind the copy that reads it."""

    buffer: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))
    read: torch.cuda.Event | None = None

    @property
    def is_free(self) -> bool:
        """True where the copy has passed."""
        return self.read is None or bool(self.read.query())  # type: ignore[no-untyped-call]


def places_of(arrays: Sequence[NDArray[Any]]) -> list[int]:
    """Where arrays begin in one buffer, in bytes, and at the end how large it is."""
    return [int(end) for end in np.cumsum([0, *(-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays)])]


def size_of(*arrays: NDArray[Any]) -> int:
    """How large a buffer is in which arrays lie one after the other, in bytes."""
    return places_of(arrays)[-1]


def views(buffer: Tensor, *arrays: NDArray[Any]) -> list[Tensor]:
    """Tensors of the arrays' shapes and types in a buffer, uint8 `[n]`, one after the other."""
    return [
        buffer[begin : begin + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
        for array, begin in zip(arrays, places_of(arrays), strict=False)
    ]


class Staging:
    """Copies arrays to the device, on CUDA through pinned memory that is kept.

    One buffer is enough as long as the device keeps up. While a copy from it is on its way, the next takes
    another, so nobody waits for the device until `BUFFERS` copies are on their way.

    Args:
        device: Where to.

    Attributes:
        device: The same.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._slots: deque[_Slot] = deque()

    def __call__(self, *arrays: NDArray[Any], target: Tensor | None = None) -> list[Tensor]:
        """Contiguous arrays as tensors on the device; on CUDA in one copy. They may be changed afterwards.

        Args:
            arrays: What is copied.
            target: On CUDA a buffer on the device for them all, uint8 `[size_of]`; None is a new one.
        """
        if self.device.type != "cuda":
            return [torch.tensor(array, device=self.device) for array in arrays]
        size = size_of(*arrays)
        slot = self._free(size)
        staged = slot.buffer[:size]
        if target is None:
            target = torch.empty_like(staged, device=self.device)
        for array, begin in zip(arrays, places_of(arrays), strict=False):
            staged.numpy()[begin : begin + array.nbytes] = array.reshape(-1).view(np.uint8)
        target.copy_(staged, non_blocking=True)
        slot.read = event_to_wait_for()
        slot.read.record()
        return views(target, *arrays)

    def _free(self, size: int) -> _Slot:
        """A slot of so many bytes that no copy reads: that of the oldest copy, or a new one."""
        if self._slots and (len(self._slots) == BUFFERS or self._slots[0].is_free):
            slot = self._slots.popleft()
        else:
            slot = _Slot()
        if slot.read is not None:
            slot.read.synchronize()
        if len(slot.buffer) < size:
            slot.buffer = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        self._slots.append(slot)
        return slot
