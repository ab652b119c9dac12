"""A live stream on a simulated clock, without threads: what comes, what is made of it, what is shown when.

Session, intake, playout and jitter buffer are the product's; only who waits for whom is replaced: time passes
where there is nothing to do, or where a device is said to take some. So a run is the same on every machine.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.live.intake import Intake
from musetalk_cli.live.jitter_buffer import JitterBuffer
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock, Frame

UNBOUNDED_S = 1e9
SOON_S = 1e-9
"""Two moments that lie closer together are one."""


class SimulatedClock:
    """Time that goes on where somebody lets it.

    Attributes:
        time: Seconds since the beginning.
    """

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        """Seconds since the beginning."""
        return self.time

    def wait(self, seconds: float, wake: threading.Event) -> bool:
        """Let that much time pass; True where `wake` is set."""
        self.time += max(0.0, seconds)
        return wake.is_set()


class Shown(NamedTuple):
    """A frame that was shown.

    Attributes:
        frame: The frame.
        planned: Seconds at which it should have been, had it been made in time.
        at: Seconds at which it was.
    """

    frame: Frame
    planned: float
    at: float


class Simulation:
    """One live stream of an engine.

    Args:
        engine: What makes the frames; time passes in it as far as what it is made of lets it.
        clock: The engine's.
        avatar: Who speaks.
        silence: The level that is silence; None makes every frame.
        policy: How the stream keeps time; it is paced.
        sample_rate: Samples per second of the sound.
        shown: Told of every frame.
        stalled: Told of frames that came after their time.

    Attributes:
        session: The engine's session.
        stalls: Frames that came after their time, while the picture before them stood.
        deepest: Most frames that waited for their time.
    """

    def __init__(
        self,
        engine: Engine,
        clock: SimulatedClock,
        avatar: Avatar,
        silence: SilenceLevel | None,
        policy: StreamPolicy,
        sample_rate: int,
        shown: Callable[[Shown], None],
        stalled: Callable[[Frame], None] = lambda _: None,
    ) -> None:
        job = engine.job
        schedule = PlayoutSchedule(Timeline(job.fps, job.alignment), job.chunk, engine.costs.first_frames)
        options = SessionOptions(silence, live=True, late_after_s=policy.late_after_s, due=schedule.expected)
        self.session = engine.open(avatar, job.fps, job.chunk, job.context, sample_rate, 1, options)
        self.stalls = 0
        self.deepest = 0
        self._engine = engine
        self._clock = clock
        self._shown = shown
        self._told_stalled = stalled
        room = policy.buffering(job.fps, job.chunk, engine.batch_sizes[-1], job.ahead)
        # nobody could wait for room: there is one thread
        self._intake = Intake(self.session, policy, schedule, clock, engine.stats, UNBOUNDED_S)
        self._buffer = JitterBuffer(room.frames, clock, schedule, self._stalled)
        self._last = 0.0

    def run(
        self, sound: Iterable[tuple[float, AudioBlock]], until: float, interrupts: Sequence[float] = ()
    ) -> None:
        """Let time pass.

        Args:
            sound: What comes when, in ascending order of time; an interrupt discards what came before it.
            until: Seconds at which to stop.
            interrupts: When somebody interrupts, ascending.
        """
        coming, cuts = deque(sound), deque(interrupts)
        while self._clock.time < until:
            now = self._clock.time + SOON_S
            if cuts and cuts[0] <= now:
                cuts.popleft()
                self.session.interrupt()
            while coming and coming[0][0] <= now:
                self._intake.put(self.session.epoch, coming.popleft()[1])
            if not self._work():
                times = (coming[0][0] if coming else math.inf, cuts[0] if cuts else math.inf)
                self._clock.time = max(now, min(*times, self._intake.wake_at, self._next_at(), until))

    def _work(self) -> bool:
        """One turn of the device loop; False where there is nothing to do until time has passed."""
        self._intake.note()
        self._show()
        while self.session.untaken and self._has_room:
            self._buffer.add(self.session.take())
        self.deepest = max(self.deepest, self._buffer.waiting)
        self._show()
        self.session.shown_later = self._buffer.ahead
        self._intake.hear()
        worked = self._engine.step()
        return worked or (self.session.untaken > 0 and self._has_room)

    @property
    def _has_room(self) -> bool:
        return self._buffer.has_room(self.session.epoch)

    def _show(self) -> None:
        """Show what is due; what became due while the device worked was shown at its time."""
        while (at := self._next_at()) <= self._clock.time + SOON_S:
            self._last = max(self._last, at)
            frame, planned = self._buffer.take(self._last)
            self._shown(Shown(frame, self._last if planned is None else planned, self._last))

    def _next_at(self) -> float:
        at = self._buffer.next_at
        return math.inf if at is None else at

    def _stalled(self, frame: Frame) -> None:
        self.stalls += 1
        self._told_stalled(frame)
