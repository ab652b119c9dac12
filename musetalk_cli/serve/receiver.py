"""A program as a viewer of its session: frames become messages, and what happens becomes events."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections import deque
from fractions import Fraction

import numpy as np

from musetalk_cli.serve.broadcast import Unit, Wants
from musetalk_cli.serve.refusals import RefusedError
from musetalk_cli.strict_json import dump
from musetalk_cli.types import Samples

QUEUED = 25
"""Messages that may wait to be sent before pictures are left out."""
BEHIND_S = 10
"""How far a client may fall behind, in seconds."""
BEHIND = f"The client is {BEHIND_S} s behind."


class Outbox:
    """Messages on their way to a client: from the threads of a session to the socket's coroutine.

    Args:
        events: The loop of the socket.

    Attributes:
        why: Why the client is sent away, None where it is not; at most 123 bytes, for the end of a socket.
    """

    def __init__(self, events: asyncio.AbstractEventLoop) -> None:
        self.why: str | None = None
        self._events = events
        self._messages: deque[bytes | str] = deque()
        self._woken = asyncio.Event()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Messages that were not taken."""
        return len(self._messages)

    def put(self, message: bytes | str) -> None:
        """Add a message, without waiting; from any thread."""
        if not self._closed:
            self._messages.append(message)
            self._wake()

    def send_away(self, why: str, hint: str) -> None:
        """Tell the client that its session is over and why, as the last message."""
        self.put(dump({"type": "closed", "error": why, "hint": hint}, compact=True))
        self.why = self.why or why
        self.close()

    def close(self) -> None:
        """Add nothing more; what is inside is still taken."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._events.call_soon_threadsafe(self._woken.set)

    async def take(self) -> bytes | str | None:
        """The next message; None once it is closed and empty."""
        while True:
            # before what it tells of is looked at, so that nothing is missed
            self._woken.clear()
            if self._messages:
                return self._messages.popleft()
            if self._closed:
                return None
            await self._woken.wait()


class Receiver:
    """A client as a viewer of its session: frames become messages, and what happens becomes events.

    Args:
        wants: What it gets of each frame.
        outbox: Where messages go.
        fps: Frames per second.
    """

    def __init__(self, wants: Wants, outbox: Outbox, fps: Fraction) -> None:
        self.wants = wants
        self._outbox = outbox
        self._most = QUEUED + int(BEHIND_S * fps)
        self._speaks = False
        # those before it were cut off
        self._first_segment = 0
        self._telling = threading.Lock()
        self._waits_for_key = False

    # -- a viewer: told by the session's sink, and never waits -------------------------------------------

    def show(self, unit: Unit) -> None:
        """Send a frame; a client that falls behind gets sound without pictures, and at last the end."""
        frame, request = unit.frame, unit.frame.request
        if self._outbox.waiting > self._most:
            self._outbox.send_away(BEHIND, "Read what is sent.")
            return
        speaks = request.utterance is not None and not frame.fate.is_idle
        if speaks != self._speaks:
            self._speaks = speaks
            self._tell("speaking" if speaks else "idle", pts=_told(frame.pts))
        self._send(unit, speaks=speaks)
        with self._telling:
            for segment in request.ends:
                if segment is None or segment >= self._first_segment:
                    self._tell("segment_finished", segment=segment, pts=_told(frame.pts))

    def end(self) -> None:
        """No frame comes any more; `ended` says why."""

    def _send(self, unit: Unit, *, speaks: bool) -> None:
        is_behind = self._outbox.waiting >= QUEUED
        # H.264 that lost a picture shows nothing right before the next one that stands alone
        self._waits_for_key = self.wants.video == "h264" and (
            is_behind or (self._waits_for_key and not unit.key)
        )
        picture = b"" if is_behind or self._waits_for_key else unit.picture
        sound = _pcm(unit.frame.request.audio) if self.wants.sound == "pcm" else b""
        if not picture and not sound:
            return
        header = dump(
            {
                "type": "frame",
                "index": unit.frame.request.index,
                "pts": _told(unit.frame.pts),
                "speaking": speaks,
                "key": unit.key,
                "picture": len(picture),
                "sound": len(sound),
            },
            compact=True,
        ).encode()
        self._outbox.put(struct.pack("<I", len(header)) + header + picture + sound)

    # -- what else it is told ----------------------------------------------------------------------------

    def refused(self, refusal: RefusedError, segment: int | None) -> None:
        """Its speech was refused; in which segment."""
        self._tell("refused", segment=segment, error=refusal.message, hint=refusal.hint)

    def interrupted(self, segment: int) -> None:
        """What was said and not shown was discarded: all of what was sent before this segment."""
        # a frame that was on its way meanwhile finishes none of them any more
        with self._telling:
            self._first_segment = segment
            self._tell("interrupted", segment=segment)

    def ended(self, error: str | None) -> None:
        """The session is over."""
        self._tell("closed", error=error)
        self._outbox.close()

    def _tell(self, kind: str, **fields: object) -> None:
        self._outbox.put(dump({"type": kind} | fields, compact=True))


def _told(pts: Fraction) -> list[int]:
    return [pts.numerator, pts.denominator]


def _pcm(samples: Samples) -> bytes:
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes()
