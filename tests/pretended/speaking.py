"""A stream or several through an engine, fed as they are live."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from lives import speech, take_all

from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.measure.stages import StageStats

from .tensors import OnDevice

JOB = JobConfig(batch_sizes=(4,), sharpen=None)
SECONDS, FRAMES = 0.6, 15
BLOCK = 1600
SIZES = (1, 4)


@dataclass(repr=False)
class Spoken:
    """What came of it.

    Attributes:
        engine: The engine.
        frames: Of every session, in order.
        waits: Who waited for the device once the streams ran.
    """

    engine: Engine
    frames: list
    waits: list


class CountingStats(StageStats):
    """Counts what every stage launches, beside its time."""

    def __init__(self, device):
        super().__init__(MonotonicClock(), device)
        self.launches = {}

    @contextmanager
    def device_span(self, stage):
        """Time a block on the device, and count it."""
        before = OnDevice.gpu.launches.total()
        with super().device_span(stage):
            yield
        self.launches.setdefault(stage, []).append(OnDevice.gpu.launches.total() - before)


def make_engine(bundle, job=JOB, **parts):
    """An engine, and on a GPU what it launches is counted."""
    on_gpu = bundle.device.type == "cuda"
    stats = CountingStats(bundle.device) if on_gpu else StageStats(MonotonicClock())
    return Engine(bundle, job if on_gpu else replace(job, image_ops="cpu"), stats, **parts)


def speak(engine, *avatars, seconds=SECONDS):
    """Let avatars speak, each with its own sound, all at once."""
    sessions = [engine.open(avatar, Fraction(25), Fraction(1, 2), None, 16_000, 1) for avatar in avatars]
    sounds = [speech(seconds, seed=number)[:, None] for number in range(len(avatars))]
    frames = [[] for _ in sessions]
    waited = len(OnDevice.gpu.waits) if OnDevice.gpu else 0
    for begin in range(0, len(sounds[0]), BLOCK):
        for session, sound in zip(sessions, sounds, strict=True):
            session.hear(sound[begin : begin + BLOCK], 0.0)
        _run(engine, sessions, frames)
    for session in sessions:
        session.end_sound(0.0)
    _run(engine, sessions, frames)
    assert all(session.is_done and session.failure is None for session in sessions)
    return Spoken(engine, frames, OnDevice.gpu.waits[waited:] if OnDevice.gpu else [])


def _run(engine, sessions, frames):
    while engine.step():
        for session, taken in zip(sessions, frames, strict=True):
            taken += [frame.image for frame in take_all(session)]


def apart(spoken, expected, share=1.0):
    """How many levels the frames differ from what is expected, at most, in a share of all values."""
    differences = [
        np.abs(one.astype(int) - other).ravel()
        for ours, theirs in zip(spoken.frames, expected.frames, strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return np.quantile(np.concatenate(differences), share)


def check_waits(spoken):
    """The sync guard: the loop may wait for one copy of patches at a time, the oldest, and for no more."""
    patches = ("engine/pinned.py", "fetch")
    others = [str(wait) for wait in spoken.waits if (wait.by.file, wait.by.function) != patches]
    assert not others, f"the loop waits for the device: {others}"
    assert [wait.kind for wait in spoken.waits] == ["an event"] * spoken.engine.filling.batches
    more = [str(wait) for wait in spoken.waits if wait.passed.count("down") != 1]
    assert not more, f"the loop waits for more than the oldest batch: {more}"


def warm_engine(on_gpu, avatars, dtype=torch.float32, **job):
    engine = make_engine(on_gpu(dtype), replace(JOB, batch_sizes=SIZES, **job))
    engine.warm_up(avatars[0])
    engine.stats.launches.clear()
    return engine
