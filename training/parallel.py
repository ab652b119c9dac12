"""The same work on many numbers, in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")


def each(work: Callable[..., T], *inputs: Iterable[object], workers: int, fresh: bool = False) -> Iterator[T]:
    """Results in the order of the inputs.

    Processes are forked from one without threads: neither torch's nor OpenCV's survive a fork.

    Args:
        work: A function at the top of a module, or a partial of one.
        inputs: Its arguments, as for `map`.
        workers: Processes; 0 works here.
        fresh: Whether each item gets a process of its own, for work whose result depends on what its
            process did before.
    """
    if workers == 0:
        yield from map(work, *inputs)
        return
    context = get_context("forkserver")
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    with context.Pool(workers, maxtasksperchild=1 if fresh else None) as pool:
        yield from pool.imap(partial(_spread, work), zip(*inputs, strict=True), chunksize=1 if fresh else 8)


def _spread(work: Callable[..., T], inputs: tuple[object, ...]) -> T:
    return work(*inputs)
