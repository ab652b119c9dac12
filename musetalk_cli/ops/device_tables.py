"""Index tables on devices, made once: those used last, and those that somebody keeps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import torch
from numpy.typing import NDArray
from torch import Tensor

Send = Callable[[Sequence[NDArray[Any]]], list[Tensor]]
"""Brings arrays to a device."""
Value = TypeVar("Value")

TABLES = 4096
"""Tables of a kind that are there though nobody keeps them, some KB each."""

_local = threading.local()


class _Table(Generic[Value]):
    """What can be referred to weakly, which a tuple cannot.

    Attributes:
        value: The table.
    """

    def __init__(self, value: Value) -> None:
        self.value = value


@contextmanager
def kept_tables(send: Send) -> Iterator[list[object]]:
    """Gives a list that takes whatever table this thread uses inside.

    As long as the list is there none of them is made again, which would wait for the device.

    Args:
        send: Brings those that are made inside to the device.
    """
    before = getattr(_local, "kept", None), getattr(_local, "send", None)
    kept: list[object] = []
    _local.kept, _local.send = kept, send
    try:
        yield kept
    finally:
        _local.kept, _local.send = before


def on_device(device: torch.device, *arrays: NDArray[Any]) -> list[Tensor]:
    """Arrays of a table on a device: as `kept_tables` says, or in a copy that waits for the device."""
    send: Send | None = getattr(_local, "send", None)
    return [torch.from_numpy(array).to(device) for array in arrays] if send is None else send(arrays)


def cached(make: Callable[..., Value]) -> Callable[..., Value]:
    """Make a table once for its arguments, as long as it is among the last `TABLES` or somebody keeps it."""
    known: WeakValueDictionary[Hashable, _Table[Value]] = WeakValueDictionary()
    recent: OrderedDict[Hashable, _Table[Value]] = OrderedDict()
    lock = threading.Lock()

    def look_up(*key: Hashable) -> Value:
        with lock:
            table = known.get(key)
        # not under the lock: what is made may wait for the device, and others look up what there is
        made = _Table(make(*key)) if table is None else table
        with lock:
            table = known.setdefault(key, made)
            recent[key] = table
            recent.move_to_end(key)
            while len(recent) > TABLES:
                recent.popitem(last=False)
        kept = getattr(_local, "kept", None)
        if kept is not None:
            kept.append(table)
        return table.value

    return look_up
