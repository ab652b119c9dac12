"""What a run is made of, with nothing to compute: a session, an engine, a source, a sink."""

import threading
from collections import deque
from fractions import Fraction

import numpy as np
import torch

from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import AudioBlock, Frame, FrameRequest, StreamFormat

STREAM = StreamFormat(8, 8, Fraction(25), 16_000, 1)
BATCH = 2


class Session:
    """Makes one frame of every piece of sound, as quickly as it comes."""

    stream = STREAM
    ready = ()
    leaves_out = False

    def __init__(self):
        self.epoch = 0
        self.heard = []
        self.finished = deque()
        self.waiting = deque()
        self.made = 0
        self.ended = False

    def interrupt(self):
        self.on_interrupt()
        self.epoch += 1

    def feed(self, samples, arrived):
        self.heard.append(float(samples[0, 0]))
        self.waiting.append((samples, arrived))

    def finish(self, now):
        assert not self.ended, "a sound ends once"
        self.ended = True

    @property
    def done(self):
        return self.ended and not self.waiting


class Engine:
    """The scheduling of a real engine with nothing to compute."""

    def __init__(self, clock, failure=None, fails_after=3):
        self.batch_sizes = (1, BATCH)
        self.stats = StageStats(clock)
        self.session = Session()
        self.clock = clock
        self.failure, self.fails_after = failure, fails_after

    def step(self):
        session = self.session
        if self.failure is not None and session.made == self.fails_after:
            raise self.failure
        worked = bool(session.waiting)
        for _ in range(min(BATCH, len(session.waiting))):
            samples, arrived = session.waiting.popleft()
            number, epoch = session.made, session.epoch
            request = FrameRequest(number, torch.zeros(0), samples, arrived, arrived, number, epoch=epoch)
            image = np.full((8, 8, 3), session.made % 256, np.uint8)
            session.finished.append(Frame(request, image, session.made / STREAM.fps, self.clock.now()))
            session.made += 1
        return worked


class Source:
    sample_rate = 16_000
    channels = 1
    live = False
    patient = True
    lost_samples = 0

    def __init__(self, pieces, failure=None, endless=False):
        self.pieces, self.failure, self.endless = pieces, failure, endless
        self.closed = threading.Event()
        self.given = 0
        self.discarded = 0

    def __iter__(self):
        while not self.closed.is_set() and (self.given < self.pieces or self.endless):
            self.given += 1
            yield AudioBlock(np.zeros((640, 1), np.float32), 0.0)
        if self.failure is not None:
            raise self.failure

    def discard(self):
        self.discarded += 1

    def close(self):
        self.closed.set()


class Sink:
    """Records what happens to it, and fails where it is told to."""

    name = "sink"
    live = False

    def __init__(self, fails_at=None, failure=None):
        self.fails_at, self.failure = fails_at, failure
        self.calls = []
        self.frames = []

    def _call(self, name):
        self.calls.append(name)
        if self.fails_at == name:
            raise self.failure

    def open(self, stream):
        assert stream == STREAM
        self._call("open")

    def write(self, frame):
        self.frames.append(int(frame.image[0, 0, 0]))
        if len(self.frames) == 3:
            self._call("write")

    def finish(self):
        self._call("finish")

    def abort(self):
        self._call("abort")
