"""What is large on its way to the device: through pinned memory, beside the frames that are made."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.nets.device import event_to_wait_for
from musetalk_cli.types import Image

STAGED_BYTES = 1 << 22
"""Pinned memory of one piece on its way; two of them are used in turn."""
ALIGNED = 16
"""Every array of an allocation begins at a multiple of so many bytes, so that a kernel reads wide words."""


def places_of(arrays: Sequence[NDArray[Any]]) -> tuple[list[int], int]:
    """Where arrays begin in one allocation, in bytes, and how large it is."""
    sizes = [-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays]
    ends = np.cumsum([0, *sizes])
    return [int(end) for end in ends[:-1]], int(ends[-1])


class Uploads:
    """Copies what is large to a device, for whoever starts a session; safe to call from several threads.

    On CUDA the copies pass on a stream of their own, piece by piece through two pinned buffers: batches on
    their way and the thread that steps the engine do not wait for them. Only the caller does.

    Args:
        device: Where to.
        staged: Bytes of each pinned buffer.
    """

    def __init__(self, device: torch.device, staged: int = STAGED_BYTES) -> None:
        self._device = device
        self._staged = staged
        self._stream: torch.cuda.Stream | None = None
        self._buffers: list[Tensor] = []
        self._events: list[torch.cuda.Event] = []
        self._lock = threading.Lock()

    def pack(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        """Copy arrays into one allocation, each at its place of `places_of`; it is there when this returns.

        Returns:
            uint8 `[n]` on the device.
        """
        places, size = places_of(arrays)
        if self._device.type != "cuda":
            whole = np.zeros(size, np.uint8)
            for at, array in zip(places, arrays, strict=True):
                whole[at : at + array.nbytes] = _bytes(array)
            return torch.from_numpy(whole).to(self._device)
        with self._lock:
            return self._send(arrays, places, size)

    def tensors(self, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
        """Copy arrays as `pack` does; the tensors of their shapes and dtypes that it consists of."""
        store, (places, _) = self.pack(arrays), places_of(arrays)
        return [
            store[at : at + array.nbytes].view(torch.from_numpy(array).dtype).view(array.shape)
            for at, array in zip(places, arrays, strict=True)
        ]

    def _send(self, arrays: Sequence[NDArray[Any]], places: Sequence[int], size: int) -> Tensor:
        stream = self._stream or torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._stream = stream
        target = torch.empty(size, dtype=torch.uint8, device=self._device)
        # work that was given to the device before may still read what the memory held
        stream.wait_stream(torch.cuda.current_stream(self._device))
        try:
            for number, begin in enumerate(range(0, size, self._staged)):
                buffer, event = self._slot(number % 2)
                piece = buffer[: size - begin]
                _fill(piece.numpy(), begin, arrays, places)
                with torch.cuda.stream(stream):
                    target[begin : begin + len(piece)].copy_(piece, non_blocking=True)
                    event.record(stream)
        finally:
            # also where one failed: the memory may be another's as soon as this returns
            for event in self._events:
                event.synchronize()
        return target

    def _slot(self, number: int) -> tuple[Tensor, torch.cuda.Event]:
        """A pinned buffer that no copy reads any more, and the event of the next one."""
        if number == len(self._buffers):
            self._buffers.append(torch.empty(self._staged, dtype=torch.uint8, pin_memory=True))
            self._events.append(event_to_wait_for())
        self._events[number].synchronize()
        return self._buffers[number], self._events[number]


def _fill(piece: Image, begin: int, arrays: Sequence[NDArray[Any]], places: Sequence[int]) -> None:
    """Write the part of an allocation that begins at a byte; what lies between arrays is left as it is."""
    end = begin + len(piece)
    for number in range(bisect_right(places, begin) - 1, bisect_left(places, end)):
        at, data = places[number], _bytes(arrays[number])
        low, high = max(at, begin), min(at + len(data), end)
        if low < high:
            piece[low - begin : high - begin] = data[low - at : high - at]


def _bytes(array: NDArray[Any]) -> Image:
    """The bytes of an array in their order; a copy where they do not lie together."""
    flat: Image = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat
