"""Index tables on devices, made once: those used last, and those that somebody keeps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

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
def kept_tables() -> Iterator[list[object]]:
    """Gives a list that takes whatever table this thread uses inside.

    As long as the list is there none of them is made again, which would wait for the device.
    """
    before = getattr(_local, "kept", None)
    kept: list[object] = []
    _local.kept = kept
    try:
        yield kept
    finally:
        _local.kept = before


def cached(make: Callable[..., Value]) -> Callable[..., Value]:
    """Make a table once for its arguments, as long as it is among the last `TABLES` or somebody keeps it."""
    known: WeakValueDictionary[Hashable, _Table[Value]] = WeakValueDictionary()
    recent: OrderedDict[Hashable, _Table[Value]] = OrderedDict()
    lock = threading.Lock()

    def look_up(*key: Hashable) -> Value:
        with lock:
            table = known.get(key)
            if table is None:
                table = known[key] = _Table(make(*key))
            recent[key] = table
            recent.move_to_end(key)
            if len(recent) > TABLES:
                recent.popitem(last=False)
        kept = getattr(_local, "kept", None)
        if kept is not None:
            kept.append(table)
        return table.value

    return look_up
