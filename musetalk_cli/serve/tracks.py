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
from musetalk_cli.serve.encoders import PACKET_SAMPLES, SOUND_CLOCK, VIDEO_CLOCK, Packet

if TYPE_CHECKING:
    from av.stream import Stream

log = logging.getLogger(__name__)

OFF_S = 0.04
"""How far silence may be from the clock, in seconds, and be sent as it is."""
QUEUED_S = 1
"""How much may wait to be sent. Packets wait for nobody, so more than that says that the loop stood still."""

Item = TypeVar("Item")


class PacketQueue(Generic[Item]):
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

    @property
    def waiting(self) -> int:
        """Items that wait."""
        return len(self._items)

    def drop_last(self, most: int) -> int:
        """Forget so many of what was put last, as far as they wait; how many these were. From any thread."""
        with self._lock:
            count = min(most, len(self._items))
            for _ in range(count):
                self._items.pop()
            return count

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
            MediaStreamError: The queue is closed.
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


class _TimedTrack(MediaStreamTrack):
    """Packets of a screen, and what `reports.Reports` wants to know of them.

    Args:
        screen: Whose packets are sent.
    """

    ticks: int

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen
        self.last: int | None = None
        self.is_waiting = True

    @property
    def began(self) -> float | None:
        """The start of the stream in seconds of `time.time`; None before its first frame."""
        return self._screen.began

    def _taken(self, data: bytes, pts: int) -> av.Packet[Stream]:
        self.last, self.is_waiting = pts, False
        packet: av.Packet[Stream] = av.Packet(data)
        packet.pts = pts
        packet.time_base = Fraction(1, self.ticks)
        return packet


class PictureTrack(_TimedTrack):
    """Access units as they come."""

    kind = "video"
    ticks = VIDEO_CLOCK

    async def recv(self) -> av.Packet[Stream]:
        """The next one, for the sender."""
        self.is_waiting = True
        picture = await self._screen.pictures.get()
        return self._taken(picture.data, picture.pts)


class SoundTrack(_TimedTrack):
    """Opus packets, each at its place in the frame."""

    kind = "audio"
    ticks = SOUND_CLOCK

    async def recv(self) -> av.Packet[Stream]:
        """The next one, for the sender."""
        self.is_waiting = True
        sound = await self._screen.sounds.get()
        wait = sound.due - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        return self._taken(sound.data, sound.pts)


def _packets(seconds: float) -> int:
    """Whole packets of sound in so many seconds, which may be below 0."""
    return int(seconds * SOUND_CLOCK / PACKET_SAMPLES)


class Screen:
    """A viewer whose units become packets of two tracks. One that falls behind goes on at the next IDR.

    A session shows silence faster than it lasts where an utterance waits behind it, and slower where its
    delay grows. A receiver would take that for packets that come early or late, and keep sound and pictures
    longer and longer, each by itself. So in silence RTP's time is put back to the clock: sound of it is left
    out, or a gap is left in it. Within speech it is the stream's own.

    Args:
        wants: What it gets.
        fps: Frames per second.
        events: The loop that sends.
        ended: Called there when the session is over.

    Attributes:
        wants: What it gets.
        pictures: Access units that wait.
        sounds: Packets of sound that wait.
        began: The start of the stream in seconds of `time.time`; None before its first frame.
    """

    def __init__(
        self, wants: Wants, fps: Fraction, events: asyncio.AbstractEventLoop, ended: Callable[[], None]
    ) -> None:
        self.wants = wants
        self.pictures: PacketQueue[Picture] = PacketQueue(max(1, round(QUEUED_S * fps)), events)
        self.sounds: PacketQueue[Sound] = PacketQueue(QUEUED_S * SOUND_CLOCK // PACKET_SAMPLES, events)
        self.began: float | None = None
        self._start = 0.0
        # samples at 48 kHz that were left out, less those of gaps
        self._left_out = 0
        # packets of silence since the last of speech
        self._silent = 0
        self._last = -1
        self._events = events
        self._ended = ended
        self._waits_for_key = False

    def show(self, unit: Unit) -> None:
        """Queue what belongs to a frame."""
        now, pts = time.monotonic(), unit.frame.pts
        if self.began is None:
            self.began, self._start = time.time() - float(pts), now - float(pts)
        ahead_s = self._start + float(pts) - self._left_out / SOUND_CLOCK - now
        sounds = unit.sound
        if unit.frame.request.utterance is None:
            sounds = self._kept(sounds, ahead_s)
            self._silent += len(sounds)
        else:
            # silence that waits yet need not be sent in front of it
            unsent = self.sounds.drop_last(min(self._silent, max(0, _packets(ahead_s))))
            self._left_out += unsent * PACKET_SAMPLES
            self._silent = 0
        if self.wants.video == "h264" and unit.picture:
            # pictures cannot be left out, since others are told from them: they come in quick succession
            at = pts - Fraction(self._left_out, SOUND_CLOCK)
            self._last = max(self._last + 1, round(at * VIDEO_CLOCK))
            self._show_picture(Picture(self._last, unit.picture), key=unit.key)
        for packet in sounds:
            due = now + float(Fraction(packet.pts, SOUND_CLOCK) - pts)
            sound = Sound(due, packet.pts - self._left_out, packet.data)
            if not self.sounds.put(sound):
                self.sounds.clear()
                self.sounds.put(sound)

    def _kept(self, sounds: tuple[Packet, ...], ahead_s: float) -> tuple[Packet, ...]:
        """What is sent of the sound of a silent frame; before or after it time is put back to the clock.

        Args:
            sounds: Its packets.
            ahead_s: By how many seconds the frame comes before its time.
        """
        if abs(ahead_s) <= OFF_S:
            return sounds
        count = min(len(sounds), _packets(ahead_s))
        self._left_out += count * PACKET_SAMPLES
        return sounds[max(0, count) :]

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
