"""Garbage collection while streams run: what is loaded is left out of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

FEW = 50_000
"""Objects that a collection goes through within a frame: they may stay in it."""


@contextmanager
def frozen() -> Iterator[None]:
    """Leave networks and libraries, which stay, out of garbage collection.

    To go through them takes a quarter of a second, in which no thread of the process runs: every stream would
    stand still. What comes from now on is collected as ever, and at the end all of it is. Where few objects
    are collected, as they are where the caller has frozen them, nothing is done.
    """
    if len(gc.get_objects()) < FEW:
        yield
        return
    # garbage that is frozen would never be freed
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
