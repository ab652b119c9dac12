"""One stream, from the sound that comes to the frames that are shown.

Sound and frames pass through three threads, each with a clock of its own, and no thread waits for another but
at a bounded queue:

- arrival: `_receive` takes blocks of sound from the source;
- the device loop: `exchange` lets the session hear what its next hop needs, and gives finished frames to the
  jitter buffer;
- presentation: `_present` takes each frame when it is due, and hands it to every sink's worker.

Whatever ends a stream, no thread is left behind. What a failure does is the policy's: all or nothing, or the
rest goes on, what was made is completed, and the outcome lists every failure.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading

from musetalk_cli.engine.session import Session
from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.live.device_loop import DeviceLoop
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.fan_out import FanOut
from musetalk_cli.live.intake import Intake
from musetalk_cli.live.jitter_buffer import JitterBuffer
from musetalk_cli.live.observe import Depths, Observer, Outcome
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import Buffering, StreamPolicy
from musetalk_cli.live.sink_worker import Queueing, SinkWorker
from musetalk_cli.live.watcher import Watcher
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Frame

log = logging.getLogger(__name__)


class Stream:
    """Moves one stream from its source through the device loop to its sinks, as one of the loop's.

    Args:
        loop: Whose device makes the frames.
        session: The engine's session for this stream.
        ends: Source, sinks, and who is told.
        policy: How it keeps time, and what a failure does.
        schedule: When frames are due; None gives each as soon as it is made.
        buffering: How much sound and how many frames may wait.
        observer: Who keeps the figures.
        stats: Where stage times go, and where time comes from.

    Attributes:
        session: The engine's session for this stream.
    """

    def __init__(
        self,
        loop: DeviceLoop,
        session: Session,
        ends: Ends,
        policy: StreamPolicy,
        schedule: PlayoutSchedule | None,
        buffering: Buffering,
        observer: Observer,
        stats: StageStats,
    ) -> None:
        self.session = session
        self._loop = loop
        self._source = ends.source
        self._stop = ends.stop
        self._policy = policy
        self._observer = observer
        self._stats = stats
        self._clock = stats.clock
        fps = session.stream.fps
        self._intake = Intake(session, policy, schedule, self._clock, stats, buffering.ahead_s)
        self._buffer = JitterBuffer(buffering.frames, self._clock, schedule, observer.stalled)
        queueing = Queueing(
            session.stream, policy.frames_queued(fps), policy.sinks_are_waited_for, lambda: session.epoch
        )
        self._sinks = FanOut(ends.sinks, queueing, stats, self._written, self._sink_failed)
        self._watcher = Watcher(lambda: observer.snapshot(self._depths()), ends.watch)
        self._arrival = threading.Thread(target=self._receive, name="arrival", daemon=True)
        self._presentation = threading.Thread(target=self._present, name="presentation", daemon=True)
        self._lock = threading.Lock()
        self._fatal: BaseException | None = None
        self._source_failure: BaseException | None = None
        self._over = threading.Event()
        self._interrupted_at = -math.inf
        self._sound_ended = False
        self._stopped = False
        self._made = False

    @property
    def unheard_s(self) -> float:
        """Seconds of sound that came ahead of its time and wait."""
        return self._intake.waiting_s

    # -- whoever runs the stream -------------------------------------------------------------------------

    def open(self) -> None:
        """Open the sinks and let the sound come.

        Raises:
            MuseTalkError: A sink cannot be opened; none is left open.
        """
        try:
            self._sinks.open()
        except BaseException:
            self._source.close()
            raise
        self._observer.start()
        self._arrival.start()
        self._presentation.start()
        self._watcher.start()

    def interrupt(self) -> None:
        """Discard everything that was said and not yet shown; safe to call from any thread."""
        # the time first and the epoch last: so sound that is on its way meanwhile is older than the cut
        self._interrupted_at = self._clock.now()
        self._source.discard()
        self.session.interrupt()
        self._sinks.mute(self.session.epoch)
        self._observer.interrupted()

    def abort(self, error: BaseException) -> None:
        """End at once, and leave no result and no thread."""
        self._give_up(error)
        self._join_threads()
        self._watcher.stop()

    def join(self) -> Outcome:
        """Wait until every sink is complete; the figures.

        Raises:
            BaseException: What ended the stream before the first frame, or at all where it is all or nothing.
        """
        self._join_threads()
        outcome = self._observer.end(
            held=self._sinks.held, breaks=self._sinks.breaks, lost_samples=self._source.lost_samples
        )
        self._watcher.stop()
        if self._fatal is not None:
            raise self._fatal
        if not outcome.frames and outcome.failures:
            raise outcome.failures[0]
        return outcome

    def _join_threads(self) -> None:
        if self._presentation.ident is not None:
            self._presentation.join()
        self._source.close()
        self._intake.close()
        if self._arrival.ident is not None:
            self._arrival.join()

    # -- arrival -----------------------------------------------------------------------------------------

    def _receive(self) -> None:
        """Take sound as it comes; every block carries the epoch it came in."""
        try:
            for block in self._source:
                # a block that was complete before an interrupt belongs to what that cut off
                is_old = block.arrived < self._interrupted_at
                self._intake.put(self.session.epoch - is_old, block)
                self._loop.wake()
        except HandoffClosed:
            return
        except BaseException as error:
            self._source_failure = error
        self._intake.close()
        self._loop.wake()

    # -- the device loop: never waits --------------------------------------------------------------------

    @property
    def wake_at(self) -> float:
        """Monotonic seconds at which a frame waits no longer for sound."""
        return self._intake.wake_at

    def exchange(self) -> bool:
        """Give sound to the session and take finished frames from it; False once the stream needs no more."""
        if self._fatal is not None or self._over.is_set():
            return False
        if self.session.failure is not None:
            raise self.session.failure
        self._intake.note()
        self._give()
        self.session.shown_later = self._buffer.ahead
        if self._stop.is_set() and not self._stopped:
            self._stopped = True
            self._observer.stopped()
            self._sinks.take_last()
            self._buffer.hurry()
            self.session.stop()
        if not self.session.is_done:
            if not self._stopped and not self._intake.hear(self._loop.round_s):
                self._end_sound()
            return True
        if self.session.untaken:  # closed before they are in it, the buffer would lose them
            return True
        if self._source_failure is not None and not self._stopped:
            self._end("the source", self._source_failure)
        self._buffer.close()
        return False

    def rest(self, seconds: float) -> None:
        """The device had nothing to do: that is no work, where this stream waited for a clock."""
        if self._policy.paced or (self._policy.own_time and not self.session.untaken):
            self._observer.waited(seconds)

    def fail(self, error: BaseException) -> None:
        """The stream ends here: the device, or what it did for this stream, has failed."""
        self._end("the engine", error)
        # what was finished is shown, also where the jitter buffer had no room for it yet
        with contextlib.suppress(Exception):  # but where the whole stream has failed meanwhile
            while self.session.untaken:
                self._buffer.add(self.session.take())
        self._buffer.close()

    def _give(self) -> None:
        """Finished frames to the jitter buffer, as far as there is room."""
        while self.session.untaken and self._buffer.has_room(self.session.epoch):
            try:
                self._buffer.add(self.session.take())
            except HandoffClosed:
                return
            self._made = True

    def _end_sound(self) -> None:
        """End the session's sound, once; what the source failed with says more than that it was too short."""
        if self._sound_ended:
            return
        self._sound_ended = True
        if self._source_failure is not None and self._policy.all_or_nothing:
            raise self._source_failure
        try:
            self.session.end_sound(self._clock.now())
        except Exception as error:
            raise self._source_failure or error from None

    # -- presentation ------------------------------------------------------------------------------------

    def _present(self) -> None:
        """Hand each frame to every sink when it is due; at the end complete the sinks, or remove them."""
        try:
            for frame, due in self._buffer:
                self._sinks.put(frame)
                self._observer.presented(frame, due)
                if self.session.untaken:  # else each frame that is shown would cost all streams a turn
                    self._loop.wake()
        except BaseException as error:
            self._end("presentation", error)
        self._over.set()
        if self._fatal is None:
            self._sinks.finish()
        if self._fatal is not None:  # a sink may have failed to complete
            self._sinks.abort()

    def _written(self, worker: SinkWorker, frame: Frame, handed: float) -> None:
        """Called in the workers' threads."""
        self._observer.handed(worker.name, frame, handed, watched=worker.watched)

    def _sink_failed(self, worker: SinkWorker, error: BaseException) -> None:
        """Called once for each sink that failed after it was open."""
        if self._policy.all_or_nothing:
            self._give_up(error)
            return
        self._observer.failed(worker.name, error)
        if self._sinks.all_failed:
            self._over.set()
            self._buffer.close()
            self._loop.wake()

    # -- failures ----------------------------------------------------------------------------------------

    def _end(self, what: str, error: BaseException) -> None:
        """Keep a failure and complete what was made, where that is worth something; else leave nothing."""
        if error is self._fatal:
            return
        if self._policy.all_or_nothing or not self._made or not isinstance(error, Exception):
            self._give_up(error)
        else:
            self._observer.failed(what, error, goes_on=False)

    def _give_up(self, error: BaseException) -> None:
        """End at once: the first failure is kept, and whoever waits anywhere goes on."""
        with self._lock:
            self._fatal = self._fatal or error
        log.debug("The stream ends with:", exc_info=error)
        # the error before the source closes, whose thread would else end the sound as if it were complete
        self._sinks.abandon()
        self._intake.close(error)
        self._buffer.close(error)
        self._source.close()
        self._loop.wake()

    def _depths(self) -> Depths:
        return Depths(self._intake.waiting, self.session.waiting, self._buffer.waiting + self._sinks.waiting)
