"""Non-blocking writes to pipes of other processes: no wait for a reader is without end."""

from __future__ import annotations

import os
import select
from collections import deque
from contextlib import suppress

STALL_S = 10.0
"""How long a reader may take nothing before it counts as stuck."""


class PipeWriter:
    """The writing end of a pipe whose reader may be slow, stuck or gone; nothing here waits for ever.

    Args:
        descriptor: The writing end; it belongs to the writer from then on.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._waiting: deque[memoryview] = deque()
        self.closed = False

    @property
    def waiting(self) -> int:
        """Pushes that are not written yet."""
        return len(self._waiting)

    def fileno(self) -> int:
        """The descriptor, for `select`."""
        return self._descriptor

    def push(self, data: memoryview) -> None:
        """Put bytes in line; they are written by `drain`."""
        if data:
            self._waiting.append(data)

    def write_some(self) -> None:
        """Write what the pipe has room for.

        Raises:
            OSError: The reader is gone.
        """
        with suppress(BlockingIOError):
            while self._waiting:
                data = self._waiting[0]
                done = os.write(self._descriptor, data)
                if done < len(data):
                    self._waiting[0] = data[done:]
                else:
                    self._waiting.popleft()

    def close(self) -> None:
        """End the pipe and forget what was not written; safe to call twice."""
        if not self.closed:
            self.closed = True
            self._waiting.clear()
            os.close(self._descriptor)


def drain(limits: dict[PipeWriter, int]) -> None:
    """Write until each pipe has at most as many pushes waiting as its limit says.

    Raises:
        TimeoutError: No pipe took anything for `STALL_S`.
        OSError: A reader is gone.
    """
    while True:
        for writer in limits:
            writer.write_some()
        if all(writer.waiting <= limit for writer, limit in limits.items()):
            return
        poll = select.poll()
        for writer in limits:
            if writer.waiting:
                poll.register(writer, select.POLLOUT)
        if not poll.poll(STALL_S * 1e3):
            raise TimeoutError
