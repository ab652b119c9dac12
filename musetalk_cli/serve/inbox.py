"""Sound of a program on its way into its session: as it comes from the socket, and as there is room."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import numpy as np

from musetalk_cli.serve.served import ServedSession
from musetalk_cli.serve.spoken_file import WAIT_S

PENDING_BYTES = 16 << 20
"""Sound that may wait here for its room; until then controls behind it are heard."""
MESSAGE_COSTS = 256
"""Bytes that a message counts for at the least, so that the smallest ones are bounded too."""
BLOCK_S = 0.1
"""Seconds of sound that are given to the session at once."""


@dataclass(frozen=True, slots=True)
class _Sound:
    """Bytes of whole samples, the number of their segment, and whether it ends with them."""

    data: bytes
    segment: int
    ends: bool


class Inbox:
    """Sound of a client that waits for room in its session.

    Args:
        session: Who hears it.

    Attributes:
        is_complete: True once the session was given all and told that no more comes.
    """

    def __init__(self, session: ServedSession) -> None:
        self.is_complete = False
        self._session = session
        self._width = 2 * session.stream.channels
        self._rest = b""
        # None is the end of all
        self._waiting: deque[_Sound | None] = deque()
        self._bytes = 0
        # of which something came; else the next one
        self._is_open = False
        self._segment = 0
        self._discards = 0
        self._changed = asyncio.Condition()

    async def add(self, data: bytes) -> None:
        """Take 16-bit PCM, cut anywhere; waits while too much of it is here."""
        data = self._rest + data
        whole = len(data) - len(data) % self._width
        self._rest = data[whole:]
        self._is_open = True
        await self._append(_Sound(data[:whole], self._segment, ends=False))

    async def end(self, *, last: bool) -> None:
        """A segment is complete, and no other comes where it is the last; waits like `add`."""
        self._rest = b""
        has_sound, self._is_open = self._is_open, False
        if has_sound or not last:
            self._segment += 1
            await self._append(_Sound(b"", self._segment - 1, ends=True))
        if last:
            await self._append(None)

    async def _append(self, item: _Sound | None) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < PENDING_BYTES)
            self._waiting.append(item)
            self._bytes += _cost(item)
            self._changed.notify_all()

    def discard(self) -> int:
        """Forget what waits; the number of the segment that comes next: one that was begun is cut off."""
        self._rest = b""
        self._segment += self._is_open
        self._is_open = False
        self._discards += 1
        is_last = None in self._waiting
        self._waiting.clear()
        if is_last:
            self._waiting.append(None)
        self._bytes = sum(map(_cost, self._waiting))
        return self._segment

    async def give_all(self) -> None:
        """Give the session what comes, until the client goes away."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                item = self._waiting.popleft()
                self._bytes -= _cost(item)
                self._changed.notify_all()
            if item is None:
                self._session.finish()
                self.is_complete = True
                return
            await self._give(item)

    async def _give(self, item: _Sound) -> None:
        discards = self._discards
        samples = np.frombuffer(item.data, "<i2").reshape(-1, self._session.stream.channels)
        step = max(1, round(BLOCK_S * self._session.stream.sample_rate))
        for start in range(0, max(1, len(samples)), step):
            block = samples[start : start + step].astype(np.float32) / np.float32(32768)
            while discards == self._discards and not self._session.hear(
                block, ends=item.ends, segment=item.segment
            ):
                await asyncio.sleep(WAIT_S)


def _cost(item: _Sound | None) -> int:
    return MESSAGE_COSTS if item is None else max(MESSAGE_COSTS, len(item.data))
