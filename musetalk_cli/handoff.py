"""Bounded queues between threads, and what is built on them: prefetching and an ordered parallel map."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class HandoffClosed(Exception):  # noqa: N818 - an ending, not an error
    """The other side has ended; nothing more goes through."""


class Handoff(Generic[Item]):
    """A bounded blocking queue that can be closed; the error it is closed with is raised on both sides.

    Args:
        capacity: Items it holds, or the sum of their sizes from which on more has to wait; at least 1.
        size: How much of the capacity an item takes, at least 1.
    """

    def __init__(self, capacity: int, size: Callable[[Item], int] = lambda _: 1) -> None:
        self._capacity = capacity
        self._size = size
        self._held = 0
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Add an item, waiting while the hand-off is full.

        Raises:
            HandoffClosed: It was closed without an error.
            BaseException: The error it was closed with.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < self._capacity)
            if self._closed:
                raise self._error or HandoffClosed
            self._append(item)

    def offer(self, item: Item) -> bool:
        """Add an item without waiting; False where the hand-off is full.

        Raises:
            HandoffClosed: It was closed without an error.
            BaseException: The error it was closed with.
        """
        with self._changed:
            if self._closed:
                raise self._error or HandoffClosed
            if self._held >= self._capacity:
                return False
            self._append(item)
            return True

    def get(self, timeout: float | None = None) -> Item | None:
        """Take the oldest item; None where none came within `timeout` seconds.

        Raises:
            HandoffClosed: It was closed and is empty.
            BaseException: The error it was closed with; what it still holds is lost.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._items), timeout)
            if self._error is not None:
                raise self._error
            if self._items:
                item = self._items.popleft()
                self._held -= self._size(item)
                self._changed.notify_all()
                return item
            if self._closed:
                raise HandoffClosed
            return None

    def _append(self, item: Item) -> None:
        self._items.append(item)
        self._held += self._size(item)
        self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self._items)

    @property
    def held(self) -> int:
        """The sum of their sizes."""
        return self._held

    def __iter__(self) -> Iterator[Item]:
        """Yield items until the hand-off is closed and empty."""
        while True:
            try:
                item = self.get()
            except HandoffClosed:
                return
            if item is not None:
                yield item

    def close(self, error: BaseException | None = None) -> None:
        """End it: items already inside can still be taken, unless `error` is given. The first error stays."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def raise_error(self) -> None:
        """Raise the error it was closed with, if any.

        Raises:
            BaseException: That error.
        """
        if self._error is not None:
            raise self._error


def ahead(items: Iterable[Item], capacity: int) -> Generator[Item]:
    """Prefetch an iterable: a thread of its own runs it ahead of whoever takes its items, none of them None.

    At most `capacity` items wait to be taken; one more is in the making, or waits to join them. A failure of
    the iterable is raised here, after the items that came before it. Closing the generator ends the thread; a
    generator that is run is closed in it.
    """
    items = iter(items)
    queue: Handoff[Item] = Handoff(capacity)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            for item in items:
                queue.put(item)
        except HandoffClosed:
            pass
        except BaseException as error:
            failure.append(error)
        finally:
            if isinstance(items, Generator):
                items.close()
            queue.close()

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        yield from queue
        if failure:
            raise failure[0]
    finally:
        queue.close()
        thread.join()


def batches(items: Iterable[Item], size: int) -> Generator[list[Item]]:
    """Group items into lists of `size`; only the last one may be smaller."""
    coming = iter(items)
    while batch := list(islice(coming, size)):
        yield batch


def side_by_side(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result]:
    """Ordered parallel map: apply a function in `workers` threads; results come in the order of the items.

    At most `2 * workers` items are in work at once. If the function or the iterable fails, the error is
    raised after the results of the items before it.
    """
    coming = iter(items)
    failure: BaseException | None = None
    with ThreadPoolExecutor(workers, "side-by-side") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            while True:
                try:
                    item = next(coming)
                except StopIteration:
                    break
                except BaseException as error:
                    failure = error
                    break
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            if failure is not None:
                raise failure
        finally:
            for future in waiting:
                future.cancel()
