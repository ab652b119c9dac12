"""Many live streams at once against the wall clock: whether a machine keeps what its warm-up promised."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.batch import sessions_of
from musetalk_cli.bench.memory import resident_bytes
from musetalk_cli.bench.options import SoakOptions
from musetalk_cli.bench.stream import open_synthetic
from musetalk_cli.bench.synthetic import SPOKEN_S, microphone, synthetic_sound
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.errors import DeviceError, describe
from musetalk_cli.live import garbage
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.device_loop import DeviceLoop
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.observe import Outcome
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.live.stream import Stream
from musetalk_cli.measure.stages import Percentiles
from musetalk_cli.nets.device import describe_device
from musetalk_cli.run.job import choose_chunk, make_engine, open_stream, settings
from musetalk_cli.run.report import peak_host_bytes, versions
from musetalk_cli.sinks import NullSink
from musetalk_cli.types import Samples

MOST_SESSIONS = 64
"""Streams that are opened at the most where nobody says how many: each has threads of its own."""


@dataclass(frozen=True, slots=True)
class SoakResult:
    """What was measured.

    Attributes:
        sessions: Streams that spoke at once.
        capacity: Of how many the warm-up said that the machine sustains them.
        chunk_s: Seconds of sound per chunk.
        seconds: How long they spoke.
        frames: Frames shown, of all.
        late: Frames made after they were due, of all.
        dropped: Frames left out, of all.
        stalls: How often a picture stood longer than its time, of all.
        first_frame_ms: Of the stream with the largest p99.
        last_frame_ms: The same.
        mouth_to_eye_ms: The same.
        busy_share: Share of the time in which the device's thread had work.
        grown_bytes: Resident memory at the end above that at the start, once all streams were open.
        peak_host_bytes: Largest resident size of the process.
        peak_device_bytes: Largest size of tensors on the device, or None on a CPU.
        failures: What ended a stream, each once.
        interrupted: True where it was stopped early.
        random_weights: True where the weights are random numbers.
        device: The device's name.
        settings: What the run was asked for, and what was chosen.
    """

    sessions: int
    capacity: int
    chunk_s: float
    seconds: float
    frames: int
    late: int
    dropped: int
    stalls: int
    first_frame_ms: Percentiles
    last_frame_ms: Percentiles
    mouth_to_eye_ms: Percentiles
    busy_share: float
    grown_bytes: int
    peak_host_bytes: int
    peak_device_bytes: int | None
    failures: list[str]
    interrupted: bool
    random_weights: bool
    device: str
    settings: dict[str, str | float | bool | None]

    @property
    def missed(self) -> int:
        """Frames that were not there when they were due: made too late, or left out."""
        return self.late + self.dropped

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        return dataclasses.asdict(self) | {"missed_deadlines": self.missed, "versions": versions()}


@torch.inference_mode()
def bench_soak(
    run: RunConfig, job: JobConfig, options: SoakOptions, notice: Callable[[str], None], handle: ControlHandle
) -> SoakResult:
    """Let streams speak at once, each as a microphone delivers it; what is late is left out.

    Every frame is made. They begin one after the other within a chunk, as people do.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        job: Frame rate, chunk, context, batch sizes and sharpening.
        options: How many, how long, and the sizes.
        notice: Told what comes next.
        handle: Ends it early, from outside.

    Raises:
        MuseTalkError: The device is not there, the model cannot be loaded, the sizes do not fit, or nobody
            said how many and the machine sustains none.
    """
    bundle, avatar = open_synthetic(run, options.sizes, notice)
    engine = make_engine(bundle, job, MonotonicClock(), live=True)
    engine.warm_up(avatar)
    choose_chunk(engine)
    capacity = sessions_of(engine.costs, engine.job)
    chunk_s = float(engine.job.chunk)
    sessions = options.sessions or min(capacity, MOST_SESSIONS)
    if not sessions:
        raise DeviceError(
            f"This machine sustains no session in chunks of {chunk_s:g} s, so none was opened.",
            "--sessions 1 measures one all the same. `musetalk bench` says what takes the time.",
        )
    notice(
        f"sessions: {sessions}, for {options.seconds:g} s in chunks of {chunk_s:g} s; "
        f"this machine sustains {capacity or 'none'}"
    )
    if bundle.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bundle.device)
    soak = _Soak(engine, avatar, options.seconds, sessions, handle)
    with garbage.frozen():
        return soak.run(capacity)


class _Soak:
    """One run: the streams, opened in turn by a thread of its own while this one is the device's."""

    def __init__(
        self, engine: Engine, avatar: Avatar, seconds: float, sessions: int, handle: ControlHandle
    ) -> None:
        self._engine = engine
        self._avatar = avatar
        self._seconds = seconds
        self._handle = handle
        self._loop = DeviceLoop(engine, engine.stats.clock)
        self._all_open = threading.Event()
        self._failures: list[BaseException] = []
        self._resident = 0
        sound = synthetic_sound(min(seconds, SPOKEN_S))
        self._streams = [self._stream(sound) for _ in range(sessions)]

    def _stream(self, sound: Samples) -> Stream:
        engine, job = self._engine, self._engine.job
        source = microphone(sound, self._seconds, engine.stats.clock)
        policy = StreamPolicy.of_stream(source, (), "auto", job.chunk)
        ends = Ends(source, [NullSink()], self._handle.stop)
        return open_stream(engine, self._loop, self._avatar, None, None, policy, ends)

    def run(self, capacity: int) -> SoakResult:
        """Speak to the end.

        Args:
            capacity: How many streams the warm-up said that the machine sustains.
        """
        self._handle.bind(self._streams[0])
        opening = threading.Thread(target=self._open, name="opening", daemon=True)
        opening.start()
        try:
            self._loop.run(self._all_open)
        except BaseException as error:
            self._handle.stop.set()
            opening.join()
            for stream in self._streams:
                stream.abort(error)
            raise
        opening.join()
        outcomes = [outcome for stream in self._streams if (outcome := self._end(stream)) is not None]
        return self._result(outcomes, capacity)

    def _open(self) -> None:
        pause = float(self._engine.job.chunk) / len(self._streams)
        try:
            for stream in self._streams:
                stream.open()
                self._loop.add(stream)
                self._handle.stop.wait(pause)
        except BaseException as error:
            self._failures.append(error)
            self._handle.stop.set()
        self._resident = resident_bytes()
        self._all_open.set()
        self._loop.wake()

    def _end(self, stream: Stream) -> Outcome | None:
        try:
            return stream.join()
        except Exception as error:
            self._failures.append(error)
            return None
        finally:
            self._engine.close(stream.session)

    def _result(self, outcomes: Sequence[Outcome], capacity: int) -> SoakResult:
        engine = self._engine
        failures = [*self._failures, *(failure for outcome in outcomes for failure in outcome.failures)]
        latencies = [outcome.latencies for outcome in outcomes]
        device, first = engine.bundle.device, outcomes[0] if outcomes else None
        return SoakResult(
            sessions=len(self._streams),
            capacity=capacity,
            chunk_s=float(engine.job.chunk),
            seconds=self._seconds,
            frames=sum(outcome.frames for outcome in outcomes),
            late=sum(one.late for one in latencies),
            dropped=sum(outcome.dropped for outcome in outcomes),
            stalls=sum(outcome.stalls for outcome in outcomes),
            first_frame_ms=_worst(one.first_frame.percentiles() for one in latencies),
            last_frame_ms=_worst(one.last_frame.percentiles() for one in latencies),
            mouth_to_eye_ms=_worst(one.worst_mouth_to_eye() for one in latencies),
            busy_share=1 - first.waiting_s / first.wall_s if first else 0.0,
            grown_bytes=resident_bytes() - self._resident,
            peak_host_bytes=peak_host_bytes(),
            peak_device_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
            failures=sorted({describe(failure) for failure in failures}),
            interrupted=any(outcome.interrupted for outcome in outcomes),
            random_weights=engine.bundle.random,
            device=describe_device(device),
            settings=settings(engine, replace(engine.job, silence=None), self._avatar.meta.name),
        )


def _worst(times: Iterable[Percentiles]) -> Percentiles:
    return max(times, key=lambda each: each.p99, default=Percentiles.of([]))
