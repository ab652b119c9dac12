"""One session of an engine of its own, fed as a microphone does, on a clock that a test owns."""

from fractions import Fraction

import numpy as np
import torch
from clocks import FakeClock

from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.measure.stages import StageStats

JOB = JobConfig(batch_sizes=(4,), image_ops="cpu")
FPS = Fraction(25)
HALF = Fraction(1, 2)
RATE = 16_000


class Stream:
    """One session of an engine of its own, fed as a microphone does: each block at its time."""

    def __init__(
        self,
        bundle,
        avatar,
        *,
        hop=HALF,
        context=None,
        fps=FPS,
        rate=RATE,
        channels=1,
        encode=None,
        generator=None,
        **options,
    ):
        self.clock = FakeClock(0.0) if generator is None else generator.clock
        self.engine = Engine(bundle, JOB, StageStats(self.clock), encode=encode, generator=generator)
        self.session = self.engine.open(avatar, fps, hop, context, rate, channels, SessionOptions(**options))
        self.rate = rate
        self.frames = []

    def say(self, sound, block=0.02):
        """Feed all of it in real time, stepping whenever there is work; returns the frames so far."""
        size = round(block * self.rate)
        for start in range(0, len(sound), size):
            part = sound[start : start + size]
            self.clock.time += len(part) / self.rate
            self.session.hear(part, self.clock.time)
            self.run()
        return self.frames

    def end(self):
        self.session.end_sound(self.clock.time)
        self.run()
        assert self.session.is_done
        return self.frames

    def run(self):
        while self.engine.step():
            self.take()
        self.take()

    def take(self):
        while self.session.untaken:
            self.frames.append(self.session.take())

    def encodings(self):
        found = self.engine.stats.summary(()).get("features")
        return 0 if found is None else found.count


def speech(seconds, rate=RATE):
    """Noise at -20 dB of full scale."""
    count = int(seconds * rate)
    return (0.1 * np.random.default_rng(1).standard_normal((count, 1))).astype(np.float32)


def quiet(seconds, rate=RATE):
    """Noise at -60 dB, as a room has."""
    count = int(seconds * rate)
    return (0.001 * np.random.default_rng(2).standard_normal((count, 1))).astype(np.float32)


def kinds(frames):
    return "".join(frame.fate.name[0] for frame in frames)


class Slow:
    """A generator that needs `seconds` of the fake clock for each batch, and no time of its own."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.clock = FakeClock(0.0)

    def unet(self, tokens, latents):
        self.clock.time += self.seconds
        return latents

    def draw(self, latents):
        return torch.zeros(len(latents), 3, 256, 256)
