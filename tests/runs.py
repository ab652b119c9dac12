"""Streams of the real engine on tiny networks, with sources and sinks that a test holds in its hands."""

import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
from clocks import FakeClock

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.live.device_loop import DeviceLoop
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.observe import Observer
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.live.stream import Stream
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock, Delivery

TIMEOUT_S = 30
RATE, FPS = 16_000, 25
FRAME = RATE // FPS
BATCH = 4
CHUNK = Fraction(1, 5)
JOB = JobConfig(fps=Fraction(FPS), chunk=CHUNK, sharpen=None, image_ops="cpu", batch_sizes=(BATCH,))
OFFLINE = StreamPolicy.of_recording()
LIVE = replace(OFFLINE, own_time=True, keeps_length=True, all_or_nothing=False)
"""What fails is closed and the rest goes on; frames are shown as they are made, so no test hangs on time."""
PACED = replace(LIVE, paced=True, sinks_are_waited_for=False)


def small_avatar(frames=3):
    return synthetic_avatar(96, 72, 40, frames)


def make_engine(bundle, clock=None, **parts):
    return Engine(bundle, JOB, StageStats(clock or FakeClock()), **parts)


class Source:
    """Blocks of one frame of noise each, which arrive at their own time on paper; nobody waits for it."""

    sample_rate = RATE
    channels = 1
    lost_samples = 0

    def __init__(
        self, blocks, failure=None, *, endless=False, stays=False, delivery=Delivery.SENT, start=1000.0
    ):
        self.blocks, self.failure, self.endless, self.stays = blocks, failure, endless, stays
        self.delivery = delivery
        self.start = start
        self.closed = threading.Event()
        self.given = self.discarded = 0
        self.noise = np.random.default_rng(0).uniform(-0.2, 0.2, (FRAME, 1)).astype(np.float32)

    def __iter__(self):
        while not self.closed.is_set() and (self.endless or self.given < self.blocks):
            self.given += 1
            yield AudioBlock(self.noise, self.start + self.given * FRAME / RATE)
        if self.failure is not None:
            raise self.failure
        if self.stays:
            assert self.closed.wait(TIMEOUT_S), "nobody closed the source"

    def discard(self):
        self.discarded += 1

    def close(self):
        self.closed.set()


class Sink:
    """Records what happens to it, and fails in `open`, its third `write` or `finish`, where it is told to."""

    watched = False

    def __init__(self, fails_at=None, failure=None, *, name="sink", clock=None):
        self.fails_at, self.failure, self.name, self.clock = fails_at, failure, name, clock
        self.calls = []
        self.frames = []
        self.times = []

    def _call(self, name):
        self.calls.append(name)
        if self.fails_at == name:
            raise self.failure

    @property
    def indices(self):
        return [frame.request.index for frame in self.frames]

    def open(self, stream):
        assert (stream.width, stream.height, stream.fps) == (96, 72, FPS)
        self._call("open")

    def write(self, frame):
        self.frames.append(frame)
        if self.clock is not None:
            self.times.append(self.clock.now())
        if len(self.frames) == 3:
            self._call("write")

    def finish(self):
        self._call("finish")

    def abort(self):
        self.calls.append("abort")


class Gated(Sink):
    """Stands still in its first frame until its gate is opened or it is ended."""

    def __init__(self, **options):
        super().__init__(**options)
        self.gate, self.entered = threading.Event(), threading.Event()

    def write(self, frame):
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S), "nobody opened the gate"
        super().write(frame)

    def abort(self):
        self.gate.set()
        super().abort()


class Run:
    """One stream on a loop, its own or one it shares, and what it says."""

    def __init__(
        self, bundle, source, sinks, policy=OFFLINE, *, engine=None, loop=None, clock=None, avatar=None,
        options=None, trace=None, watch=None, stream=Stream,
    ):  # fmt: skip
        self.clock = clock or FakeClock()
        self.engine = engine or make_engine(bundle, self.clock)
        self.loop = loop or DeviceLoop(self.engine, self.clock)
        self.source, self.sinks, self.stop = source, sinks, threading.Event()
        schedule = PlayoutSchedule(Timeline(JOB.fps), CHUNK) if policy.paced else None
        options = options or SessionOptions()
        if schedule is not None:
            options = replace(options, live=True, due=schedule.expected)
        self.session = self.engine.open(
            avatar or small_avatar(), JOB.fps, CHUNK, Fraction(0), RATE, 1, options
        )
        self.snapshots = []
        self.observer = Observer(self.clock, float(CHUNK), RATE, trace=trace)
        ends = Ends(source, sinks, self.stop, watch or self.snapshots.append)
        stats = StageStats(self.clock)
        room = policy.buffering(JOB.fps, CHUNK, BATCH, JOB.ahead)
        self.stream = stream(self.loop, self.session, ends, policy, schedule, room, self.observer, stats)

    def run(self):
        try:
            self.stream.open()
            self.loop.add(self.stream)
            self.loop.run()
            return self.stream.join()
        except BaseException as error:
            self.stream.abort(error)
            raise
