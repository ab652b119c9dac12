"""The figures of a run, taken from outside while it goes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from musetalk_cli.clock import Clock
from musetalk_cli.measure.stages import Figures, Percentiles
from musetalk_cli.measure.trace import Trace
from musetalk_cli.types import Frame, Shown

log = logging.getLogger(__name__)

SNAPSHOT_S = 0.25
"""How often a run says how it goes, at most."""
RECENT = 12
"""Snapshots over which the rate of frames is taken."""


@dataclass(slots=True)
class Latencies:
    """The three latencies of a run, in seconds, and what was late.

    The first two are those of made frames: a chunk of silence needs no time, and says nothing.

    Attributes:
        chunk_s: Length of a chunk.
        first_frame: Chunk complete to its first frame composited, one per chunk.
        last_frame: Chunk complete to its last frame composited, one per chunk.
        mouth_to_eye: Arrival of a frame's first sample to the frame in a sink, one per frame.
        late: Made frames that were composited after they were due; none is where no frame has its time.
    """

    chunk_s: float
    first_frame: Figures = field(default_factory=Figures)
    last_frame: Figures = field(default_factory=Figures)
    mouth_to_eye: Figures = field(default_factory=Figures)
    late: int = 0
    _hop: int = -1
    _delay: float | None = None

    def composited(self, frame: Frame, due: float | None) -> None:
        """Take note of a frame; frames come in order.

        Args:
            frame: The frame.
            due: Monotonic seconds at which it is shown; None where it is as soon as it is made.
        """
        if frame.shown is not Shown.SPEAKING:
            return
        delay = frame.composited - frame.request.ready
        if frame.request.hop != self._hop:
            self.close()
            self._hop = frame.request.hop
            self.first_frame.append(delay)
        self._delay = delay
        self.late += due is not None and frame.composited > due

    def close(self) -> None:
        """Take note of the last chunk's last frame."""
        if self._delay is not None:
            self.last_frame.append(self._delay)
        self._delay = None


@dataclass(slots=True)
class Outcome:
    """What a run did.

    Attributes:
        latencies: When frames came.
        sample_rate: Samples per second of their sound.
        frames: Frames presented.
        idle: Those of them that took no model work, because nothing was said or there was no face.
        broken: Those of them that show the source frame, since the face made for them is not a number.
        dropped: Those of them that were late and are shown as the picture before them.
        held: Pictures that a sink was too slow for, over all sinks.
        samples: Samples of each channel of their sound.
        lost_samples: Samples of each channel that the source could not keep.
        wall_s: Seconds from when every sink was open to the end, the completion of files included.
        waiting_s: Seconds the device had nothing to do: a live source had not delivered, frames were early.
        interrupted: True where the run was stopped before the sound ended.
        failures: What failed on the way, in order.
    """

    latencies: Latencies
    sample_rate: int
    frames: int = 0
    idle: int = 0
    broken: int = 0
    dropped: int = 0
    held: int = 0
    samples: int = 0
    lost_samples: int = 0
    wall_s: float = 0.0
    waiting_s: float = 0.0
    interrupted: bool = False
    failures: list[BaseException] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a run goes.

    Attributes:
        elapsed_s: Seconds since its start.
        frames: Frames presented.
        fps: Frames per second, over the last seconds.
        real_time_factor: Seconds of work per second of sound.
        first_frame_ms: As in `Latencies`, so far.
        last_frame_ms: The same.
        mouth_to_eye_ms: The same.
        sound_waiting: Pieces of sound that wait for the device.
        requests_waiting: Frames that wait to be made.
        frames_waiting: Frames that wait for their time or for a sink.
        late: Late frames.
        dropped: Frames left out.
        idle: Frames without model work.
        speaking: True where the last frame shows a made face.
        failed: Names of the sinks that failed.
    """

    elapsed_s: float
    frames: int
    fps: float
    real_time_factor: float
    first_frame_ms: Percentiles
    last_frame_ms: Percentiles
    mouth_to_eye_ms: Percentiles
    sound_waiting: int
    requests_waiting: int
    frames_waiting: int
    late: int
    dropped: int
    idle: int
    speaking: bool
    failed: tuple[str, ...]


class Observer:
    """Keeps the figures of one run; told by the threads that know.

    Args:
        clock: Where time comes from.
        chunk_s: Seconds of sound per chunk.
        sample_rate: Samples per second of the sound.
        trace: Where the depths of the queues go besides, or None.

    Attributes:
        outcome: The figures so far.
    """

    def __init__(self, clock: Clock, chunk_s: float, sample_rate: int, trace: Trace | None = None) -> None:
        self.outcome = Outcome(Latencies(chunk_s), sample_rate)
        self._clock = clock
        self._trace = trace
        self._started = clock.now()
        self._shown = -1
        self._speaking = False
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._failed: list[str] = []
        self._lock = threading.Lock()

    def start(self) -> Outcome:
        """Begin; the outcome that will be filled."""
        self._started = self._clock.now()
        self._recent.append((self._started, 0))
        return self.outcome

    def waited(self, seconds: float) -> None:
        """The device's thread had nothing to do."""
        self.outcome.waiting_s += seconds

    def failed(self, name: str, error: BaseException) -> None:
        """A sink has failed."""
        log.warning("%s failed and was closed: %s", name, error)
        with self._lock:
            self._failed.append(name)
            self.outcome.failures.append(error)

    def handed(self, frame: Frame, at: float) -> None:
        """A frame was handed to a sink; told in order, each once."""
        with self._lock:
            if frame.request.index > self._shown:
                self._shown = frame.request.index
                self.outcome.latencies.mouth_to_eye.append(at - frame.request.arrived)

    def presented(
        self,
        frame: Frame,
        due: float | None,
        depths: tuple[int, int, int],
        watch: Callable[[Snapshot], None] | None,
    ) -> None:
        """A frame was presented; told in order by one thread, with when it was due, if it was."""
        outcome = self.outcome
        outcome.latencies.composited(frame, due)
        outcome.frames += 1
        outcome.idle += frame.shown is Shown.IDLE
        outcome.broken += frame.shown is Shown.BROKEN
        outcome.dropped += frame.shown is Shown.HELD
        outcome.samples += len(frame.request.audio)
        self._speaking = frame.shown is Shown.SPEAKING
        if self._clock.now() - self._recent[-1][0] >= SNAPSHOT_S:
            self._tell(depths, watch)

    def end(self, depths: tuple[int, int, int], watch: Callable[[Snapshot], None] | None) -> None:
        """The run has ended."""
        self.outcome.latencies.close()
        self.outcome.wall_s = self._clock.now() - self._started
        self._tell(depths, watch)

    def _tell(self, depths: tuple[int, int, int], watch: Callable[[Snapshot], None] | None) -> None:
        now = self._clock.now()
        if self._trace is not None:
            for name, depth in zip(("sound", "requests", "frames"), depths, strict=True):
                self._trace.counter(name, depth, now)
        since, before = self._recent[0]
        self._recent.append((now, self.outcome.frames))
        if watch is not None:
            fps = (self.outcome.frames - before) / max(now - since, 1e-9)
            watch(self._snapshot(now, fps, depths))

    def _snapshot(self, now: float, fps: float, depths: tuple[int, int, int]) -> Snapshot:
        outcome, latencies = self.outcome, self.outcome.latencies
        elapsed = now - self._started
        spoken = outcome.samples / outcome.sample_rate
        with self._lock:
            mouth_to_eye = latencies.mouth_to_eye.percentiles()
            failed = tuple(self._failed)
        return Snapshot(
            elapsed_s=elapsed,
            frames=outcome.frames,
            fps=fps,
            real_time_factor=(elapsed - outcome.waiting_s) / spoken if spoken else 0.0,
            first_frame_ms=latencies.first_frame.percentiles(),
            last_frame_ms=latencies.last_frame.percentiles(),
            mouth_to_eye_ms=mouth_to_eye,
            sound_waiting=depths[0],
            requests_waiting=depths[1],
            frames_waiting=depths[2],
            late=latencies.late,
            dropped=outcome.dropped,
            idle=outcome.idle,
            speaking=self._speaking,
            failed=failed,
        )
