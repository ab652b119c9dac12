"""Intake: what a stream's session hears, and when.

Sound that came ahead of its time waits here, and the session hears no more of it than its next hop needs: so
what an interrupt cuts off has mostly had no place in the stream yet. Where a frame is due and the sound after
it is not there, it is made from what is; where its own is not, silence takes the place of what does not come,
and is part of the stream from then on. A source that speaks as it goes is heard as late as its first frame
can be shown, and silence goes on in front of it meanwhile: so the face never stands still.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.engine.session import Session
from musetalk_cli.engine.voice_gate import Fade
from musetalk_cli.handoff import Handoff, HandoffClosed
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.timeline import ceil_div
from musetalk_cli.types import AudioBlock

PATIENCE_S = 0.1
"""How long a picture is held inside a word whose sound does not come, before silence takes its place.

A stream begins with silence where no sound came for so long.
"""
SILENT_S = 0.25
"""A source that speaks as it goes, and sent nothing for so long, has fallen silent."""
TOGETHER = 3
"""Frames of silence that are planned at once at the least, where the device works for others: each turn that
a stream asks for is one of all streams."""
MOST_SILENT_S = 1
"""The most silence that takes its place at once, in seconds."""
SHORTEST_BLOCK_S = 0.01
"""How much sound a block counts for at the least, so that the smallest ones are bounded too."""


class Intake:
    """Gives the sound of a source to a session. `put` and `close` are for the source's thread.

    Args:
        session: Who hears it.
        policy: How the stream keeps time.
        schedule: When frames are due; None where nobody waits for a clock.
        clock: Where time comes from.
        stats: Where stage times go.
        ahead_s: Seconds of sound that may wait.

    Attributes:
        wake_at: Monotonic seconds at which there is something to do though no sound came.
    """

    def __init__(
        self,
        session: Session,
        policy: StreamPolicy,
        schedule: PlayoutSchedule | None,
        clock: Clock,
        stats: StageStats,
        ahead_s: float,
    ) -> None:
        self.wake_at = math.inf
        self._session = session
        self._policy = policy
        self._schedule = schedule
        self._clock = clock
        self._stats = stats
        rate = session.stream.sample_rate
        shortest = max(1, int(SHORTEST_BLOCK_S * rate))
        self._queue: Handoff[tuple[int, AudioBlock]] = Handoff(
            max(1, int(ahead_s * rate)), lambda item: max(shortest, len(item[1].samples))
        )
        self._begun: float | None = None
        # (samples, when they were there) of blocks that came and were not noted yet
        self._came: deque[tuple[int, float]] = deque()
        self._reach = 0
        self._came_last = -math.inf
        self._segment_ended = False
        period = 1 / session.timeline.fps
        # the fade at the end of an utterance is made in one piece
        self._fade = ceil_div(Fade.FADE_S + period, period) - 1
        self._most_silent = ceil_div(MOST_SILENT_S, period)

    @property
    def waiting(self) -> int:
        """Blocks of sound that wait."""
        return self._queue.waiting

    @property
    def waiting_s(self) -> float:
        """Seconds of sound that wait."""
        return self._queue.held / self._session.stream.sample_rate

    def put(self, epoch: int, block: AudioBlock) -> None:
        """Add sound, waiting while there is no room.

        Args:
            epoch: How many interrupts the session had seen when it came.
            block: The sound.

        Raises:
            HandoffClosed: The intake was closed.
        """
        self._came.append((len(block.samples), block.arrived))
        self._queue.put((epoch, block))

    def close(self, error: BaseException | None = None) -> None:
        """End it: what is inside is still heard, unless `error` is given."""
        self._queue.close(error)

    def note(self) -> None:
        """Take note of when sound came, whether or not it was heard yet."""
        while self._came:
            samples, arrived = self._came.popleft()
            self._reach += samples
            self._came_last = arrived
            if self._schedule is not None and self._policy.own_time:
                self._schedule.source.arrived(self._reach / self._session.stream.sample_rate, arrived)

    def hear(self, round_s: float = 0.0) -> bool:
        """Let the session hear what its next hop needs; False once the sound has ended.

        Args:
            round_s: Seconds until this is asked again, where the device works for others: silence is heard,
                or takes the place of what does not come, so much earlier.

        Raises:
            BaseException: What the intake was closed with.
        """
        if self._begun is None:
            self._begun = self._clock.now()
        self.wake_at = math.inf
        while self._session.hop_ready() is None or self._rests_on(round_s):
            if self._waits_for_its_time(round_s):
                break
            try:
                block = self._pull()
            except HandoffClosed:
                return False
            if block is None:
                if self._session.hop_ready() is None:
                    self._go_on_without(round_s)
                break
            self._segment_ended = block.ends
            with self._stats.span("audio"):
                arrived = block.arrived if self._policy.own_time else self._clock.now()
                self._session.hear(block.samples, arrived, ends=block.ends, segment=block.segment)
        return True

    def _pull(self) -> AudioBlock | None:
        """The next block that was not cut off, or None where there is none yet.

        A recording goes on where it was: what is still to come of it was not said before the interrupt.
        """
        while (item := self._queue.get(0)) is not None:
            epoch, block = item
            if epoch == self._session.epoch or not self._policy.own_time:
                return block
            if self._policy.keeps_length:
                return replace(block, samples=np.zeros_like(block.samples))
            self._reach -= len(block.samples)
            self._forget_clock()
        return None

    def _rests_on(self, round_s: float) -> bool:
        """True where nothing is said in the hop that is due, and the time of the next frame has come as well.

        In a round there is one turn, so all such frames are planned in it.
        """
        hearing = self._session.hearing
        hop = hearing.due()
        if hop is None or not hop.is_silent or len(hop.frames) >= self._most_silent:
            return False
        if not self._policy.goes_on or not self._queue.waiting or hearing.is_speaking:
            return False
        frame = hop.frames.stop
        return self._time_has_come(frame, round_s) and not self._is_too_soon(frame, round_s)

    def _is_too_soon(self, frame: int, round_s: float) -> bool:
        """True where a silent frame is due before its sound is heard, and turns are rare."""
        schedule = self._schedule
        if schedule is None or round_s <= schedule.period:
            return False
        soonest, due = schedule.soonest(frame), schedule.expected(frame)
        return soonest is not None and due is not None and soonest - due >= schedule.period

    def _time_has_come(self, frame: int, round_s: float) -> bool:
        """True where a frame can be shown by the source's clock, or could be before it is finished."""
        soonest = None if self._schedule is None else self._schedule.soonest(frame)
        # one round until this is asked again, and one until what is then planned is finished
        return soonest is not None and self._clock.now() >= soonest - 2 * round_s

    def _waits_for_its_time(self, round_s: float) -> bool:
        """True where sound is there and its first frame cannot be shown yet: silence goes on in front of it.

        So an utterance is heard at its beginning, and what its delay takes is silence that moves.
        """
        schedule, hearing = self._schedule, self._session.hearing
        if schedule is None or not self._policy.goes_on or not self._queue.waiting:
            return False
        if hearing.in_utterance or hearing.is_speaking:
            return False
        frame, now = hearing.next_frame, self._clock.now()
        soonest, due = schedule.soonest(frame), schedule.expected(frame)
        too_soon = self._is_too_soon(frame, round_s)
        if soonest is None or due is None or (self._time_has_come(frame, round_s) and not too_soon):
            return False
        at = due - min(schedule.period, schedule.reserve)
        if (now < at or soonest - now <= schedule.period) and not too_soon:
            self.wake_at = min(at, soonest) if now < at else soonest
            return True
        if missing := hearing.missing(frame):
            self._put_in_silence(missing, now)
            schedule.source.moved(missing / self._session.stream.sample_rate)
        hearing.wait_no_longer(frame)
        return True

    def _go_on_without(self, round_s: float) -> None:
        """No sound is there: let frames that are due go on with what was heard, and at last with silence."""
        schedule, hearing = self._schedule, self._session.hearing
        if schedule is None:
            return
        frame, now = hearing.next_frame, self._clock.now()
        missing = hearing.missing(frame)
        if self._segment_ended and not missing:
            hearing.wait_no_longer()
            return
        if missing and not self._policy.goes_on:
            return
        at = self._wait_until(schedule, frame, missing=missing > 0)
        rests = missing > 0 and not (hearing.in_utterance or hearing.is_speaking)
        if rests:
            # one round until it is asked again, and one until what it then plans is finished
            at -= 2 * round_s
        if now < at:
            self.wake_at = at
        elif missing:
            # all that are due by then, since in a round there is one turn
            more = self._silent_frames(now - at, round_s) if rests else 0
            last = frame + self._fade if hearing.in_utterance else frame + more
            self._put_in_silence(hearing.missing(last), now)
            self._forget_clock()
            hearing.wait_no_longer(last)
        else:
            hearing.wait_no_longer()

    def _silent_frames(self, late_s: float, round_s: float) -> int:
        """How many frames of silence are planned behind one that is late by so much: all that are due too."""
        schedule = self._schedule
        assert schedule is not None  # noqa: S101 - without one nothing is late
        due = int(late_s / schedule.period)
        if round_s and schedule.source.offset is None:  # where sound flows, it may come for these
            due = max(due, TOGETHER - 1)
        return min(due, self._most_silent)

    def _put_in_silence(self, samples: int, now: float) -> None:
        self._session.settle()
        self._session.hearing.put_in_silence(samples, now)
        self._reach += samples

    def _wait_until(self, schedule: PlayoutSchedule, frame: int, *, missing: bool) -> float:
        """Monotonic seconds until which a frame waits for more sound."""
        hearing, due, soonest = self._session.hearing, schedule.expected(frame), schedule.soonest(frame)
        if due is None:
            return math.inf if self._begun is None else self._begun + PATIENCE_S
        if not hearing.is_speaking or self._segment_ended:
            return due - (schedule.lead if hearing.in_utterance else schedule.period)
        if not hearing.in_utterance and soonest is not None:
            due = max(due, soonest + schedule.reserve)  # its first frame sets the delay
        if not missing:
            return due - schedule.lead
        # one that speaks as it goes would have been heard by now
        return due + PATIENCE_S if soonest is None else max(due - schedule.lead, self._came_last + SILENT_S)

    def _forget_clock(self) -> None:
        if self._schedule is not None:
            self._schedule.source.clear()
