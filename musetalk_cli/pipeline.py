"""The run loop: a thread per clock, two bounded hand-offs, one declared place that waits.

Arrival (the source), the device (the caller's thread) and presentation (the sinks) each have their own
thread. What is full waits. The first failure anywhere closes both hand-offs and is raised to the caller,
and nothing half-written stays behind.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from musetalk_cli.engine import Engine
from musetalk_cli.handoff import Handoff, HandoffClosed
from musetalk_cli.session import Session
from musetalk_cli.timing import Clock, Durations, durations
from musetalk_cli.types import AudioChunk, Frame, Sink, Source

log = logging.getLogger(__name__)

POLL_S = 0.05
"""How often a wait for sound looks whether it should stop."""
ARRIVALS = 64
"""Pieces of sound that may wait for the device."""
FRAMES_PER_BATCH_WAITING = 2
"""Batches of frames that may wait for the sinks."""

Progress = Callable[[int], None]
"""Called with the frames handed to the sinks so far."""


@dataclass(slots=True)
class Latencies:
    """The three latencies of a run, in seconds, and what was late.

    Attributes:
        chunk_s: Length of a chunk.
        late_after_s: A frame composited later than this after its chunk is complete is late.
        first_frame: Chunk complete to its first frame composited, one per chunk.
        last_frame: Chunk complete to its last frame composited, one per chunk.
        mouth_to_eye: Arrival of a frame's first sample to the frame in the sinks, one per frame.
        late: Late frames.
    """

    chunk_s: float
    late_after_s: float
    first_frame: Durations = field(default_factory=durations)
    last_frame: Durations = field(default_factory=durations)
    mouth_to_eye: Durations = field(default_factory=durations)
    late: int = 0
    _hop: int = -1

    def record(self, frame: Frame, handed: float) -> None:
        """Take note of a frame; frames come in order."""
        delay = frame.composited - frame.request.ready
        if frame.request.hop != self._hop:
            self._hop = frame.request.hop
            self.first_frame.append(delay)
            self.last_frame.append(delay)
        self.last_frame[-1] = delay
        self.mouth_to_eye.append(handed - frame.request.arrived)
        self.late += delay > self.late_after_s


@dataclass(slots=True)
class Outcome:
    """What a run did.

    Attributes:
        frames: Frames handed to the sinks.
        samples: Samples of each channel of their sound.
        sample_rate: Samples per second of it.
        wall_s: Seconds from start to end, the completion of files included.
        waiting_s: Seconds the device had nothing to do because a live source had not delivered.
        latencies: When frames came.
        interrupted: True where the run was stopped before the sound ended.
    """

    latencies: Latencies
    sample_rate: int
    frames: int = 0
    samples: int = 0
    wall_s: float = 0.0
    waiting_s: float = 0.0
    interrupted: bool = False


class Pipeline:
    """Moves one stream from its source through an engine to its sinks.

    Args:
        engine: What makes the frames.
        session: The engine's session for this stream.
        source: Where the sound comes from.
        sinks: Where the frames go; all get every frame.
        clock: Where time comes from.
        chunk_s: Length of a chunk in seconds.
        offline: True where no frame can be late; in a stream it is after the length of a chunk.
    """

    def __init__(
        self,
        engine: Engine,
        session: Session,
        source: Source,
        sinks: Sequence[Sink],
        clock: Clock,
        chunk_s: float,
        *,
        offline: bool = False,
    ) -> None:
        self._engine = engine
        self._session = session
        self._source = source
        self._sinks = sinks
        self._clock = clock
        self._arrivals: Handoff[AudioChunk] = Handoff(ARRIVALS)
        self._frames: Handoff[Frame] = Handoff(FRAMES_PER_BATCH_WAITING * engine.batch_sizes[-1])
        self._outcome = Outcome(
            Latencies(chunk_s, math.inf if offline else chunk_s), session.stream.sample_rate
        )
        self._progress: Progress | None = None

    def run(self, stop: threading.Event, progress: Progress | None = None) -> Outcome:
        """Run until the sound ends or `stop` is set; then complete the sinks.

        Raises:
            MuseTalkError: Source, engine or a sink failed; every sink was told to leave nothing behind.
        """
        self._progress = progress
        started = self._clock.now()
        threads = [
            threading.Thread(target=self._arrive, name="arrival", daemon=True),
            threading.Thread(target=self._present, name="presentation", daemon=True),
        ]
        try:
            for sink in self._sinks:
                sink.open(self._session.stream)
            for thread in threads:
                thread.start()
            self._serve(stop)
            self._frames.close()
            threads[1].join()
            self._frames.raise_error()
            if not self._outcome.frames:
                self._abort()
            else:
                for sink in self._sinks:
                    sink.finish()
        except BaseException as error:
            try:
                self._end(threads, error)
            finally:
                self._abort()
            raise
        self._end(threads)
        self._outcome.wall_s = self._clock.now() - started
        return self._outcome

    def _abort(self) -> None:
        """Abort every sink, also where one of them fails to."""
        for sink in self._sinks:
            try:
                sink.abort()
            except Exception as error:
                log.warning("A result could not be removed: %s", error)

    def _end(self, threads: Sequence[threading.Thread], error: BaseException | None = None) -> None:
        self._source.close()
        self._arrivals.close(error)
        self._frames.close(error)
        if error is not None:
            self._abort()  # a thread that waits in a sink that takes nothing ends no other way
        for thread in threads:
            if thread.is_alive():
                thread.join()

    def _arrive(self) -> None:
        """The arrival thread."""
        try:
            for piece in self._source:
                self._arrivals.put(piece)
            self._arrivals.close()
        except HandoffClosed:
            return
        except BaseException as error:
            self._arrivals.close(error)

    def _present(self) -> None:
        """The presentation thread."""
        try:
            for frame in self._frames:
                handed = self._clock.now()
                with self._engine.stats.span("sink"):
                    for sink in self._sinks:
                        sink.write(frame)
                self._record(frame, handed)
        except BaseException as error:
            self._frames.close(error)

    def _record(self, frame: Frame, handed: float) -> None:
        outcome = self._outcome
        outcome.latencies.record(frame, handed)
        outcome.frames += 1
        outcome.samples += len(frame.request.audio)
        if self._progress is not None:
            self._progress(outcome.frames)

    def _serve(self, stop: threading.Event) -> None:
        """The device's thread: step while there is work, take more sound when there is none."""
        while not self._session.done:
            self._frames.raise_error()
            if stop.is_set():
                self._outcome.interrupted = True
                return
            worked = self._engine.step()
            while self._session.finished:
                self._frames.put(self._session.finished.popleft())
            if not worked and not self._session.done:
                self._listen()

    def _listen(self) -> None:
        """Wait for the next piece of sound and feed it."""
        asked = self._clock.now()
        try:
            piece = self._arrivals.get(POLL_S)
        except HandoffClosed:
            self._session.finish(self._clock.now())
            return
        now = self._clock.now()
        if self._source.live:
            self._outcome.waiting_s += now - asked
        if piece is not None:
            with self._engine.stats.span("audio"):
                self._session.feed(piece.samples, piece.arrived if self._source.live else now)
