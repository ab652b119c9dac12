"""Statistics of a stream, taken from outside while it goes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, field, replace

from musetalk_cli.clock import Clock
from musetalk_cli.errors import describe
from musetalk_cli.live.latencies import Latencies
from musetalk_cli.measure.stages import Percentiles
from musetalk_cli.measure.trace import Trace
from musetalk_cli.types import Fate, Frame

log = logging.getLogger(__name__)

RECENT = 12
"""Snapshots over which the rate of frames is taken: 3 s at the watcher's pace."""


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
        breaks: How often sound was broken off where it is heard.
        utterances: Utterances of which a frame was presented.
        stalls: How often a frame of an utterance came after its time, while the picture before it stood.
        short: Made frames that had less look-ahead than they want.
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
    breaks: int = 0
    utterances: int = 0
    stalls: int = 0
    short: int = 0
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
        response_ms: The same.
        waiting: What waits.
        late: Late frames.
        dropped: Frames held because they were late.
        idle: Frames without model work.
        utterances: As in `Outcome`, so far.
        stalls: The same.
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
    response_ms: Percentiles
    waiting: Depths
    late: int
    dropped: int
    idle: int
    utterances: int
    stalls: int
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
        self._utterance = -1
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
            response = self._outcome.latencies.handed(sink, frame, at, watched=watched)
        if self._trace is not None and response is not None:
            self._trace.span("response", at - response, response, f"response of {sink}")

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
            outcome.short += frame.fate.is_made and frame.request.short
            spoken = frame.request.utterance
            begins = spoken is not None and spoken.number > self._utterance
            if spoken is not None and begins:
                self._utterance = spoken.number
                outcome.utterances += 1
            before, self._last = self._last, frame.fate
        if begins:
            self._mark("utterance")
        if frame.fate is Fate.HELD and before is not Fate.HELD:
            self._mark("drop")

    def stalled(self, frame: Frame) -> None:
        """A frame came after its time: the picture before it stood longer."""
        self._mark("stall")
        with self._lock:
            self._outcome.stalls += frame.request.utterance is not None

    def end(self, *, held: int, breaks: int, lost_samples: int) -> Outcome:
        """The stream has ended; its figures.

        Args:
            held: Pictures that sinks were too slow for.
            breaks: How often sound was broken off where it is heard.
            lost_samples: Samples of each channel that the source could not keep.
        """
        with self._lock:
            self._outcome.latencies.end_hop()
            self._outcome.wall_s = self._clock.now() - self._started
            self._outcome.held = held
            self._outcome.breaks = breaks
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
            mouth_to_eye, response = latencies.worst_mouth_to_eye(), latencies.worst_response()
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
            response_ms=response,
            waiting=waiting,
            late=latencies.late,
            dropped=outcome.dropped,
            idle=outcome.idle,
            utterances=outcome.utterances,
            stalls=outcome.stalls,
            speaking=last is not None and last.is_made,
            failed=failed,
        )

    def _mark(self, name: str) -> None:
        if self._trace is not None:
            self._trace.mark(name, self._clock.now())
