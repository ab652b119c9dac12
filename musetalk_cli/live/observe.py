"""The figures of a stream, taken from outside while it goes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field, replace

from musetalk_cli.clock import Clock
from musetalk_cli.errors import describe
from musetalk_cli.measure.stages import Figures, Percentiles
from musetalk_cli.measure.trace import Trace
from musetalk_cli.types import Fate, Frame

log = logging.getLogger(__name__)

RECENT = 12
"""Snapshots over which the rate of frames is taken."""


@dataclass(slots=True)
class Latencies:
    """The three latencies of a stream, in seconds, and what was late.

    The first two are those of made frames: a hop of silence needs no time, and says nothing.

    Attributes:
        chunk_s: Length of a hop.
        first_frame: Hop complete to its first frame composited, one per hop.
        last_frame: Hop complete to its last frame composited, one per hop.
        mouth_to_eye: Arrival of a frame's first sample to the frame in a sink, one per frame, by sink.
        late: Made frames that were composited after they were due; none is where no frame has its time.
    """

    chunk_s: float
    first_frame: Figures = field(default_factory=Figures)
    last_frame: Figures = field(default_factory=Figures)
    mouth_to_eye: dict[str, Figures] = field(default_factory=dict)
    late: int = 0
    _watched: set[str] = field(default_factory=set)
    _hop: int = -1
    _delay: float | None = None

    def composited(self, frame: Frame, due: float | None) -> None:
        """Take note of a frame; frames come in order.

        Args:
            frame: The frame.
            due: Monotonic seconds at which it is shown; None where it is as soon as it is made.
        """
        if not frame.fate.is_made:
            return
        delay = frame.composited - frame.request.ready
        if frame.request.hop != self._hop:
            self.end_hop()
            self._hop = frame.request.hop
            self.first_frame.append(delay)
        self._delay = delay
        self.late += due is not None and frame.composited > due

    def end_hop(self) -> None:
        """Take note of the last hop's last frame."""
        if self._delay is not None:
            self.last_frame.append(self._delay)
        self._delay = None

    def handed(self, sink: str, frame: Frame, at: float, *, watched: bool) -> None:
        """Take note of a frame that was handed to a sink."""
        if watched:
            self._watched.add(sink)
        self.mouth_to_eye.setdefault(sink, Figures()).append(at - frame.request.arrived)

    def eye(self) -> Percentiles:
        """Mouth to eye where it is worst among the sinks that somebody watches, or among all if none is."""
        shown = [figures for name, figures in self.mouth_to_eye.items() if name in self._watched]
        told = [figures.percentiles() for figures in shown or self.mouth_to_eye.values()]
        return max(told, key=lambda each: each.p95, default=Percentiles.of([]))


@dataclass(slots=True)
class Outcome:
    """What a stream did.

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
        waiting_s: Seconds the device had nothing to do: sound had not come, frames were early.
        interrupted: True where the stream was stopped before the sound ended.
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
class Depths:
    """What waits in a stream.

    Attributes:
        sound: Blocks of sound that wait for the device.
        requests: Frames that wait to be made.
        frames: Frames that wait for their time or for a sink.
    """

    sound: int
    requests: int
    frames: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a stream goes.

    Attributes:
        elapsed_s: Seconds since its start.
        frames: Frames presented.
        fps: Frames per second, over the last seconds.
        real_time_factor: Seconds of work per second of sound.
        first_frame_ms: As in `Latencies`, so far.
        last_frame_ms: The same.
        mouth_to_eye_ms: The same, of the worst sink that is watched.
        waiting: What waits.
        late: Late frames.
        dropped: Frames held because they were late.
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
    waiting: Depths
    late: int
    dropped: int
    idle: int
    speaking: bool
    failed: tuple[str, ...]


class Observer:
    """Keeps the figures of one stream; told by the threads that know, and safe to ask from any.

    Args:
        clock: Where time comes from.
        chunk_s: Seconds of sound per hop.
        sample_rate: Samples per second of the sound.
        trace: Where moments and the depths of the queues go besides, or None.
    """

    def __init__(
        self,
        clock: Clock,
        chunk_s: float,
        sample_rate: int,
        trace: Trace | None = None,
    ) -> None:
        self._outcome = Outcome(Latencies(chunk_s), sample_rate)
        self._clock = clock
        self._trace = trace
        self._started = clock.now()
        self._last: Fate | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._failed: list[str] = []
        self._lock = threading.Lock()

    def start(self) -> None:
        """Every sink is open: the stream's time begins."""
        self._started = self._clock.now()
        self._recent.append((self._started, 0))

    def waited(self, seconds: float) -> None:
        """The device had nothing to do."""
        with self._lock:
            self._outcome.waiting_s += seconds

    def failed(self, name: str, error: BaseException, *, goes_on: bool = True) -> None:
        """Something of the stream has failed; `-v` shows where.

        Args:
            name: What has failed.
            error: With what.
            goes_on: The rest goes on, so this is said now. Where the stream ends, its end says so.
        """
        if goes_on:
            log.warning("%s failed and was closed: %s", name, describe(error))
        log.debug("Where %s failed:", name, exc_info=error)
        self._mark(f"{name} failed")
        with self._lock:
            self._failed.append(name)
            self._outcome.failures.append(error)

    def stopped(self) -> None:
        """The stream is ended before its sound is."""
        self._outcome.interrupted = True

    def interrupted(self) -> None:
        """What was said and not yet shown is discarded."""
        self._mark("interrupt")

    def handed(self, sink: str, frame: Frame, at: float, *, watched: bool) -> None:
        """A frame was handed to a sink; told in order."""
        with self._lock:
            self._outcome.latencies.handed(sink, frame, at, watched=watched)

    def presented(self, frame: Frame, due: float | None) -> None:
        """A frame was presented; told in order by one thread, with when it was due, if it was."""
        with self._lock:
            outcome = self._outcome
            outcome.latencies.composited(frame, due)
            outcome.frames += 1
            outcome.idle += frame.fate.is_idle
            outcome.broken += frame.fate is Fate.BROKEN
            outcome.dropped += frame.fate is Fate.HELD
            outcome.samples += len(frame.request.audio)
            before, self._last = self._last, frame.fate
        if frame.fate is Fate.HELD and before is not Fate.HELD:
            self._mark("drop")
        elif frame.fate.is_made and (before is None or before.is_idle):
            self._mark("utterance")

    def stalled(self) -> None:
        """A frame came after its time: the picture before it stood longer."""
        self._mark("stall")

    def end(self, *, held: int, lost_samples: int) -> Outcome:
        """The stream has ended; its figures.

        Args:
            held: Pictures that sinks were too slow for.
            lost_samples: Samples of each channel that the source could not keep.
        """
        with self._lock:
            self._outcome.latencies.end_hop()
            self._outcome.wall_s = self._clock.now() - self._started
            self._outcome.held = held
            self._outcome.lost_samples = lost_samples
            return self._outcome

    def snapshot(self, waiting: Depths) -> Snapshot:
        """How the stream goes, now; to be asked by one thread."""
        now = self._clock.now()
        if self._trace is not None:
            for name, depth in (
                ("sound", waiting.sound),
                ("requests", waiting.requests),
                ("frames", waiting.frames),
            ):
                self._trace.counter(name, depth, now)
        with self._lock:
            outcome = replace(self._outcome, failures=list(self._outcome.failures))
            latencies = outcome.latencies
            mouth_to_eye = latencies.eye()
            failed, last = tuple(self._failed), self._last
        since, before = self._recent[0] if self._recent else (self._started, 0)
        self._recent.append((now, outcome.frames))
        elapsed = now - self._started
        spoken = outcome.samples / outcome.sample_rate
        return Snapshot(
            elapsed_s=elapsed,
            frames=outcome.frames,
            fps=(outcome.frames - before) / max(now - since, 1e-9),
            real_time_factor=(elapsed - outcome.waiting_s) / spoken if spoken else 0.0,
            first_frame_ms=latencies.first_frame.percentiles(),
            last_frame_ms=latencies.last_frame.percentiles(),
            mouth_to_eye_ms=mouth_to_eye,
            waiting=waiting,
            late=latencies.late,
            dropped=outcome.dropped,
            idle=outcome.idle,
            speaking=last is not None and last.is_made,
            failed=failed,
        )

    def _mark(self, name: str) -> None:
        if self._trace is not None:
            self._trace.mark(name, self._clock.now())
