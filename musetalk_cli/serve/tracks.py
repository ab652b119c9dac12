"""What a viewer by WebRTC is sent: units from the session's sink thread become packets on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from musetalk_cli.serve.broadcast import Unit, Wants
from musetalk_cli.serve.encoders import PACKET_SAMPLES, SOUND_CLOCK, VIDEO_CLOCK

if TYPE_CHECKING:
    from av.stream import Stream

log = logging.getLogger(__name__)

QUEUED_S = 1
"""How much may wait to be sent. Packets wait for nobody, so more than that says that the loop stood still."""

Item = TypeVar("Item")


class Line(Generic[Item]):
    """A bounded queue from a thread to a coroutine.

    Args:
        most: Items that it holds.
        events: The loop of the coroutine.
    """

    def __init__(self, most: int, events: asyncio.AbstractEventLoop) -> None:
        self._most = most
        self._events = events
        self._items: deque[Item] = deque()
        self._filled = asyncio.Event()
        self._closed = False
        self._lock = threading.Lock()

    def put(self, item: Item) -> bool:
        """Add an item, without waiting; False where there is no room. From any thread."""
        with self._lock:
            if len(self._items) >= self._most:
                return False
            self._items.append(item)
        self._wake()
        return True

    def clear(self) -> None:
        """Forget what waits; from any thread."""
        with self._lock:
            self._items.clear()

    def close(self) -> None:
        """Give nothing more; from any thread."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._events.call_soon_threadsafe(self._filled.set)

    async def get(self) -> Item:
        """The next item.

        Raises:
            MediaStreamError: The line is closed.
        """
        while not self._closed:
            # before the items are looked at, so that none is missed
            self._filled.clear()
            with self._lock:
                if self._items:
                    return self._items.popleft()
            await self._filled.wait()
        raise MediaStreamError


class Picture(NamedTuple):
    """An access unit.

    Attributes:
        pts: Ticks of 1/90000 s from the start of the stream.
        data: Annex B.
    """

    pts: int
    data: bytes


class Sound(NamedTuple):
    """An Opus packet.

    Attributes:
        due: Seconds of `time.monotonic` before which it must not be sent.
        pts: Samples at 48 kHz from the start of the stream.
        data: The packet.
    """

    due: float
    pts: int
    data: bytes


class PictureTrack(MediaStreamTrack):
    """Access units as they come."""

    kind = "video"

    def __init__(self, line: Line[Picture]) -> None:
        super().__init__()
        self._line = line

    async def recv(self) -> av.Packet[Stream]:
        """The next one, for the sender."""
        picture = await self._line.get()
        return _packet(picture.data, picture.pts, VIDEO_CLOCK)


class SoundTrack(MediaStreamTrack):
    """Opus packets, each at its place in the frame.

    A sender tells its receiver which packet was sent when, and by that the receiver plays sound to pictures.
    """

    kind = "audio"

    def __init__(self, line: Line[Sound]) -> None:
        super().__init__()
        self._line = line

    async def recv(self) -> av.Packet[Stream]:
        """The next one, for the sender."""
        sound = await self._line.get()
        wait = sound.due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        return _packet(sound.data, sound.pts, SOUND_CLOCK)


def _packet(data: bytes, pts: int, clock: int) -> av.Packet[Stream]:
    packet: av.Packet[Stream] = av.Packet(data)
    packet.pts = pts
    packet.time_base = Fraction(1, clock)
    return packet


class Screen:
    """A viewer whose units become packets of two tracks. One that falls behind goes on at the next IDR.

    Args:
        wants: What it gets.
        fps: Frames per second.
        events: The loop that sends.
        ended: Called there when the session is over.

    Attributes:
        wants: What it gets.
        pictures: Access units that wait.
        sounds: Packets of sound that wait.
    """

    def __init__(
        self, wants: Wants, fps: Fraction, events: asyncio.AbstractEventLoop, ended: Callable[[], None]
    ) -> None:
        self.wants = wants
        self.pictures: Line[Picture] = Line(max(1, round(QUEUED_S * fps)), events)
        self.sounds: Line[Sound] = Line(QUEUED_S * SOUND_CLOCK // PACKET_SAMPLES, events)
        self._events = events
        self._ended = ended
        self._waits_for_key = False

    def show(self, unit: Unit) -> None:
        """Put what belongs to a frame in line."""
        now, pts = time.monotonic(), unit.frame.pts
        if self.wants.video == "h264":
            self._show_picture(Picture(round(pts * VIDEO_CLOCK), unit.picture), key=unit.key)
        for packet in unit.sound:
            sound = Sound(now + float(Fraction(packet.pts, SOUND_CLOCK) - pts), packet.pts, packet.data)
            if not self.sounds.put(sound):
                self.sounds.clear()
                self.sounds.put(sound)

    def _show_picture(self, picture: Picture, *, key: bool) -> None:
        if self._waits_for_key and not key:
            return
        self._waits_for_key = False
        if not self.pictures.put(picture):
            log.info("A viewer is %d s behind: pictures are left out up to the next IDR.", QUEUED_S)
            self.pictures.clear()
            self._waits_for_key = not (key and self.pictures.put(picture))

    def end(self) -> None:
        """Tell the loop that the session is over."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._events.call_soon_threadsafe(self._ended)

    def close(self) -> None:
        """Give the tracks nothing more."""
        self.pictures.close()
        self.sounds.close()
