"""The device loop: it owns the device, steps the engine for every stream, and knows no source and no sink.

Nothing in it waits for a stream. What a stream has heard is taken in, what the engine has finished is given
out as far as there is room; where there is none it stays with the session, which the scheduler then passes
over. So a stream that nobody empties holds up nobody.
"""

from __future__ import annotations

import math
import threading
from typing import Protocol

from musetalk_cli.clock import Clock
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session import Session
from musetalk_cli.errors import DeviceLostError
from musetalk_cli.live.playout import MinimumFilter

REMEMBERED_S = 10.0
"""For how long a round of the loop says how long the next may be: utterances come and go within seconds."""
LONGEST_ROUND_S = 0.5
"""The most that a stream is made ahead for: on a device whose rounds are longer nothing keeps its time."""
POLL_S = 0.05
"""How long the loop sleeps at most while there is nothing to do: what stops it need not wake it."""


class LoopStream(Protocol):
    """What the loop sees of a stream. All but `session` belong to the device's thread, and never wait.

    Attributes:
        session: Its state inside the engine.
    """

    session: Session

    @property
    def wake_at(self) -> float:
        """Monotonic seconds at which there is something to do for it, though nobody wakes the loop."""

    def exchange(self) -> bool:
        """Give sound to the session and take finished frames from it; False once the stream needs no more."""

    def rest(self, seconds: float) -> None:
        """The device had nothing to do for so long."""

    def fail(self, error: BaseException) -> None:
        """The stream ends here: the device, or what it did for this stream, has failed."""


class DeviceLoop:
    """Steps one engine for any number of streams.

    Args:
        engine: What makes the frames.
        clock: Where time comes from.

    Attributes:
        failures: How often the device failed since it last did what was to be done; infinite where it never
            will again.
    """

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._streams: tuple[LoopStream, ...] = ()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self.failures: float = 0
        # the longest of the past, as the smallest of what is below 0
        self._rounds = MinimumFilter(REMEMBERED_S)

    @property
    def round_s(self) -> float:
        """Seconds that a stream may have to wait for its turn, because the device works for others.

        It is known before the first long round comes: what the largest batch takes was measured.
        """
        if len(self._streams) < 2:
            return 0.0
        longest = -(self._rounds.smallest or 0.0)
        return min(max(longest, self._engine.round_s), LONGEST_ROUND_S)

    def add(self, stream: LoopStream) -> None:
        """Let a stream take part, from any thread."""
        with self._lock:
            # replaced as a whole, so that the device's thread is not disturbed while it goes through them
            self._streams = (*self._streams, stream)
        self.wake()

    def wake(self) -> None:
        """There may be something to do: sound came, or room."""
        self._wake.set()

    def run(self, until: threading.Event | None = None) -> None:
        """Step until no stream is left, in the thread that owns the device.

        Args:
            until: Go on without a stream, and end when this is set and none is left; None is set.

        Raises:
            BaseException: What is no `Exception`, like a second Ctrl-C; every stream was told.
        """
        while self._streams or (until is not None and not until.is_set()):
            self.turn()

    def turn(self) -> None:
        """One round: exchange with every stream, then one step of the engine, or a rest if it had no work."""
        try:
            # before anything is looked at: what comes while it is, wakes the loop again
            self._wake.clear()
            begun = self._clock.now()
            for stream in self._streams:
                self._exchange(stream)
            if self._streams and self._engine.step():
                self.failures = 0
                now = self._clock.now()
                self._rounds.add(begun - now, now)
            else:
                self._rest()
        except BaseException as error:
            self.failures = math.inf if isinstance(error, DeviceLostError) else self.failures + 1
            for stream in self._streams:
                self._leave(stream)
                stream.fail(error)
            if not isinstance(error, Exception):
                raise

    def _exchange(self, stream: LoopStream) -> None:
        """A stream's own failure is its own: the others go on."""
        try:
            if stream.exchange():
                return
        except Exception as error:
            stream.fail(error)
        self._leave(stream)

    def _leave(self, stream: LoopStream) -> None:
        self._engine.close(stream.session)
        with self._lock:
            self._streams = tuple(other for other in self._streams if other is not stream)

    def _rest(self) -> None:
        asked = self._clock.now()
        until = min((stream.wake_at for stream in self._streams), default=math.inf)
        # not by the clock: what wakes it are threads, whatever time the streams keep
        self._wake.wait(min(POLL_S, max(0.0, until - asked)))
        rested = self._clock.now() - asked
        for stream in self._streams:
            stream.rest(rested)
