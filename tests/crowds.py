"""Many live streams on one device, on a simulated clock and without threads: who is shown what, and when.

Loop, engine, sessions, intakes and jitter buffers are the product's. A batch takes the time that it is said
to take, and whatever was due meanwhile was shown meanwhile.
"""

import math
from collections import deque
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch

from musetalk_cli.bench.simulation import SOON_S, SimulatedClock
from musetalk_cli.bench.stand_in import Grey, deaf, stand_in
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.costs import Costs
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session import SessionOptions
from musetalk_cli.live.device_loop import DeviceLoop
from musetalk_cli.live.intake import Intake
from musetalk_cli.live.jitter_buffer import JitterBuffer
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.files import Card
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock, Delivery

RATE, FPS = 16_000, Fraction(25)
HOP_S = 0.006
BATCH_S, FRAME_S = 0.004, 0.014
"""About what the demo takes on two cores."""


class Takes(Grey):
    """Grey faces, for which time passes."""

    def __init__(self, bundle, clock, seconds):
        super().__init__(bundle)
        self._clock, self._seconds = clock, seconds

    def faces(self, latents):
        self._clock.time += self._seconds(len(latents))
        return super().faces(latents)


class CrowdStream:
    """A stream as the loop sees it.

    Attributes:
        shown: When each frame was shown, with the frame.
        stalls: Frames that came after their time.
    """

    def __init__(self, crowd, sound):
        engine, clock, chunk = crowd.engine, crowd.clock, crowd.engine.job.chunk
        policy = StreamPolicy.of_delivery(Delivery.LIVE, "auto", chunk, watched=True)
        self.schedule = PlayoutSchedule(Timeline(FPS), chunk, engine.costs.first_frames)
        options = SessionOptions(
            SilenceLevel(), live=True, late_after_s=policy.late_after_s, due=self.schedule.expected
        )
        self.session = engine.open(crowd.avatar, FPS, chunk, None, RATE, 1, options)
        room = policy.buffering(FPS, chunk, engine.batch_sizes[-1], Fraction(30))
        self.shown, self.stalls = [], []
        self._crowd, self._coming = crowd, deque(sound)
        self._intake = Intake(self.session, policy, self.schedule, clock, engine.stats, 1e9)
        self._buffer = JitterBuffer(room.frames, clock, self.schedule, self.stalls.append)

    @property
    def wake_at(self):
        return self._intake.wake_at

    @property
    def next_at(self):
        """When it wakes the loop: sound comes, or there is room for a frame that found none."""
        room = self._buffer.next_at if self.session.untaken else None
        return min(math.inf if room is None else room, self._coming[0][0] if self._coming else math.inf)

    def exchange(self):
        while self._coming and self._coming[0][0] <= self._crowd.clock.time + SOON_S:
            self._intake.put(self.session.epoch, self._coming.popleft()[1])
        self._intake.note()
        self._show()
        while self.session.untaken and self._buffer.has_room(self.session.epoch):
            self._buffer.add(self.session.take())
        self._show()
        self.session.shown_later = self._buffer.ahead
        self._intake.hear(self._crowd.loop.round_s)
        return True

    def _show(self):
        while (at := self._buffer.next_at) is not None and at <= self._crowd.clock.time + SOON_S:
            at = max([at, *(time for time, _ in self.shown[-1:])])
            self.shown.append((at, self._buffer.take(at)[0]))

    def rest(self, seconds):
        pass

    def fail(self, error):
        raise error


class Wake:
    """Where the loop rests: until something happens."""

    def __init__(self, crowd):
        self._crowd = crowd

    def set(self):
        pass

    def clear(self):
        pass

    def wait(self, seconds):
        clock = self._crowd.clock
        happens = min(stream.next_at for stream in self._crowd.streams)
        clock.time = max(clock.time + SOON_S, min(clock.time + seconds, happens))


class Crowd:
    """Streams on one device.

    Args:
        chunk: Seconds of the longest hop.
        slower: How many times longer a batch takes than it took when it was measured; asked for each.
    """

    def __init__(self, chunk, slower=lambda: 1.0):
        self.clock = SimulatedClock()
        bundle = replace(stand_in(), card=Card(cpu_batch=13, window_s=Fraction(5)))
        job = JobConfig(fps=FPS, chunk=chunk, sharpen=None, image_ops="cpu")

        def takes(frames):
            return BATCH_S + FRAME_S * frames

        def encode(requests):
            self.clock.time += HOP_S * len(requests) * slower()
            return deaf(requests)

        generator = Takes(bundle, self.clock, lambda frames: takes(frames) * slower())
        stats = StageStats(self.clock)
        self.engine = Engine(bundle, job, stats, encode=encode, generator=generator, live=True)
        sizes = self.engine.batch_sizes
        self.engine.costs = Costs(HOP_S, {size: takes(size) for size in (sizes[0], sizes[-1])})
        self.avatar = synthetic_avatar(96, 72, 40, 3)
        self.loop, self.streams = DeviceLoop(self.engine, self.clock), []
        self.loop._wake = Wake(self)  # noqa: SLF001 - it rests in simulated time

    def add(self, sound=()):
        """A stream that gets sound: (seconds, samples float32 `[n, 1]`), ascending."""
        stream = CrowdStream(self, [(at, AudioBlock(samples, at)) for at, samples in sound])
        self.streams.append(stream)
        self.loop.add(stream)
        return stream

    @torch.inference_mode()
    def until(self, time):
        while self.clock.time < time:
            self.loop.turn()


def at_once(samples, at):
    """Sound that is there all at once, in blocks."""
    return [(at, block) for block in np.split(samples, range(RATE // 20, len(samples), RATE // 20))]


def as_spoken(samples, begin, end):
    """Sound of a microphone that is on from the start, in blocks of 20 ms; silence but for what is spoken."""
    whole = np.full((round(end * RATE), 1), 1e-4, np.float32)
    first = round(begin * RATE)
    whole[first : first + len(samples)] = samples[: max(0, len(whole) - first)]
    blocks = np.split(whole, range(RATE // 50, len(whole), RATE // 50))
    return [((number + 1) / 50, block) for number, block in enumerate(blocks)]
