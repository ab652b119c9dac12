"""The run loop: a thread per clock, two bounded hand-offs, and a short queue for each sink.

Arrival (the source), the device (the caller's thread) and presentation each have their own thread; so has
every sink. What is full waits. Whatever ends a run, no thread is left behind:

- offline, the first failure anywhere is raised to the caller, and nothing half-written stays;
- in a stream a sink that fails is closed and the others go on; where the source or the device fails, the
  sinks are completed with what was made. The outcome lists the failures.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session import Session
from musetalk_cli.handoff import Handoff, HandoffClosed
from musetalk_cli.live.jitter_buffer import PlayoutSchedule
from musetalk_cli.live.observe import Observer, Outcome, Snapshot
from musetalk_cli.live.sink_worker import SinkWorker
from musetalk_cli.types import AudioBlock, AudioSource, Frame, Sink

POLL_S = 0.05
"""How often a wait for sound looks whether it should stop."""
ARRIVALS = 64
"""Pieces of sound that may wait for the device."""
FRAMES_PER_BATCH_WAITING = 2
"""Batches of frames that may wait for presentation, at the least."""
SINK_FRAMES = 4
"""Frames that may wait for a sink, at the least."""

Watch = Callable[[Snapshot], None]
"""Told how a run goes, a few times a second and at its end."""


class Pipeline:
    """Moves one stream from its source through an engine to its sinks.

    Args:
        engine: What makes the frames.
        session: The engine's session for this stream.
        source: Where the sound comes from.
        sinks: Where the frames go; all get every frame.
        clock: Where time comes from.
        playout: When frames are shown; None shows each as soon as it is made.
        observer: Who keeps the figures.
        offline: The first failure ends everything, and leaves nothing.
    """

    def __init__(
        self,
        engine: Engine,
        session: Session,
        source: AudioSource,
        sinks: Sequence[Sink],
        clock: Clock,
        observer: Observer,
        *,
        playout: PlayoutSchedule | None = None,
        offline: bool = False,
    ) -> None:
        self._engine = engine
        self._session = session
        self._source = source
        self._clock = clock
        self._observer = observer
        self._playout = playout
        self._offline = offline
        batch = engine.batch_sizes[-1]
        ahead = 0 if playout is None else int(observer.outcome.latencies.chunk_s * session.stream.fps) + batch
        room = SINK_FRAMES if playout is None else int(session.stream.fps)
        self._arrivals: Handoff[tuple[int, AudioBlock]] = Handoff(ARRIVALS)
        self._frames: Handoff[Frame] = Handoff(max(FRAMES_PER_BATCH_WAITING * batch, ahead))
        self._workers = [
            SinkWorker(
                sink,
                session,
                max(SINK_FRAMES, room),
                clock,
                engine.stats,
                self._written,
                self._sink_failed,
                waits=playout is None or source.patient,
            )
            for sink in sinks
        ]
        self._source_failure: BaseException | None = None
        self._made = False
        self._ended = False
        self._flush = threading.Event()
        self._interrupted_at = -math.inf
        session.on_interrupt = self._interrupt
        self._watch: Watch | None = None

    def run(self, stop: threading.Event, watch: Watch | None = None) -> Outcome:
        """Run until the sound ends or `stop` is set; then complete the sinks.

        Raises:
            MuseTalkError: Source, engine or a sink failed before the first frame, or offline.
        """
        self._watch = watch
        threads = [
            threading.Thread(target=self._arrive, name="arrival", daemon=True),
            threading.Thread(target=self._present, name="presentation", daemon=True),
        ]
        try:
            for worker in self._workers:
                worker.open()
            outcome = self._observer.start()
            for thread in threads:
                thread.start()
            try:
                self._serve(stop)
            except Exception as error:
                self._keep_or_raise(error)
            self._complete(threads[1])
        except BaseException as error:
            self._abort(threads, error)
            raise
        self._close(threads)
        outcome.lost_samples = self._source.lost_samples
        outcome.held = sum(worker.held for worker in self._workers)
        self._observer.end(self._depths(), watch)
        return outcome

    def _keep_or_raise(self, error: Exception) -> None:
        """Go on to what completes the sinks, where a stream has come so far that this is worth something."""
        if self._offline or not self._made:
            raise error
        failures = self._observer.outcome.failures
        if error not in failures:
            failures.append(error)

    def _complete(self, presentation: threading.Thread) -> None:
        """Show what was made, and complete every sink."""
        if self._observer.outcome.interrupted:
            self._flush.set()
        self._frames.close()
        presentation.join()
        try:
            self._frames.raise_error()
        except Exception as error:
            self._keep_or_raise(error)
        for worker in self._workers:
            worker.finish()
            if worker.failure is not None and self._offline:
                raise worker.failure
        if not self._observer.outcome.frames and self._observer.outcome.failures:
            raise self._observer.outcome.failures[0]

    def _abort(self, threads: Sequence[threading.Thread], error: BaseException) -> None:
        self._frames.close(error)
        self._arrivals.close(error)
        self._flush.set()
        for worker in self._workers:
            worker.abort()
        self._close(threads)

    def _close(self, threads: Sequence[threading.Thread]) -> None:
        self._source.close()
        self._arrivals.close()
        self._frames.close()
        for thread in threads:
            if thread.is_alive():
                thread.join()

    def _arrive(self) -> None:
        """The arrival thread: every piece carries the epoch it came in."""
        try:
            for piece in self._source:
                is_old = piece.arrived < self._interrupted_at
                self._arrivals.put((self._session.epoch - is_old, piece))
        except HandoffClosed:
            return
        except BaseException as error:
            self._source_failure = error
        self._arrivals.close()

    def _interrupt(self) -> None:
        """Called by whoever interrupts the session, before its epoch changes."""
        self._interrupted_at = self._clock.now()
        self._source.discard()

    def _present(self) -> None:
        """The presentation thread."""
        try:
            for frame in self._frames:
                due = None if self._playout is None else self._playout.due(frame)
                if due is not None:
                    self._wait_until(due)
                for worker in self._workers:
                    worker.put(frame)
                self._observer.presented(frame, due, self._depths(), self._watch)
        except BaseException as error:
            self._frames.close(error)

    def _wait_until(self, due: float) -> None:
        remaining = due - self._clock.now()
        if remaining > 0 and not self._flush.is_set():
            self._clock.wait(remaining, self._flush)

    def _written(self, worker: SinkWorker, frame: Frame, handed: float) -> None:
        """Called in the workers' threads: the first that is alive stands for all in the figures."""
        if worker is next(other for other in self._workers if other.failure is None):
            self._observer.handed(frame, handed)

    def _sink_failed(self, worker: SinkWorker, error: BaseException) -> None:
        """Called in the thread of an worker whose sink has failed."""
        if not self._offline:
            self._observer.failed(worker.name, error)
        if self._offline or all(other.failure is not None for other in self._workers):
            self._frames.close(error)

    def _depths(self) -> tuple[int, int, int]:
        """Pieces of sound, requests and frames that wait."""
        shown = max((worker.waiting for worker in self._workers), default=0)
        return len(self._arrivals), len(self._session.ready), len(self._frames) + shown

    def _serve(self, stop: threading.Event) -> None:
        """The device's thread: step while there is work, take more sound when there is none."""
        session = self._session
        while not session.done:
            self._frames.raise_error()
            if stop.is_set():
                self._observer.outcome.interrupted = True
                return
            while session.leaves_out and self._hear(0):
                pass  # what is late can be told only once it is heard
            worked = self._engine.step()
            self._hand_over()
            if not worked and not session.done:
                self._hear(POLL_S)
        if self._source_failure is not None:
            raise self._source_failure

    def _hand_over(self) -> None:
        """Finished frames to presentation; a stream that waits for their time has nothing to do meanwhile."""
        asked = self._clock.now()
        while self._session.finished:
            self._frames.put(self._session.finished.popleft())
            self._made = True
        if self._playout is not None:
            self._observer.waited(self._clock.now() - asked)

    def _hear(self, wait_s: float) -> bool:
        """Feed the next piece of sound; False where none came for so long, or the sound has ended."""
        asked = self._clock.now()
        try:
            arrival = self._arrivals.get(wait_s)
        except HandoffClosed:
            if self._source_failure is not None and self._offline:
                raise self._source_failure from None
            self._finish()
            return False
        now = self._clock.now()
        if self._source.live:
            self._observer.waited(now - asked)
        if arrival is None:
            return False
        epoch, piece = arrival
        if epoch != self._session.epoch and self._source.live:
            if self._source.patient:
                return True
            piece = replace(piece, samples=np.zeros_like(piece.samples))
        with self._engine.stats.span("audio"):
            self._session.feed(piece.samples, piece.arrived if self._source.live else now)
        return True

    def _finish(self) -> None:
        """End the session's sound, once; what the source failed with says more than that it was too short."""
        if self._ended:
            return
        self._ended = True
        try:
            self._session.finish(self._clock.now())
        except Exception as error:
            raise self._source_failure or error from None
