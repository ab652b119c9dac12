"""The benchmark of a live stream: against the wall clock, for several lengths of chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.options import LiveOptions
from musetalk_cli.bench.stream import open_synthetic, speak_synthetic
from musetalk_cli.bench.synthetic import SPOKEN_S, microphone, synthetic_sound
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.run.job import make_engine
from musetalk_cli.run.report import Report


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What was measured.

    Attributes:
        runs: One report for each length of chunk.
        random_weights: True where the weights are random numbers.
    """

    runs: list[Report]
    random_weights: bool

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        runs = [run.as_json() | {"missed_deadlines": missed(run)} for run in self.runs]
        return {"runs": runs, "random_weights": self.random_weights}


def missed(run: Report) -> int:
    """Frames that were not there when they were due: made too late, or left out."""
    return run.late_frames + run.dropped_frames


@torch.inference_mode()
def bench_live(
    run: RunConfig, job: JobConfig, options: LiveOptions, notice: Callable[[str], None], handle: ControlHandle
) -> LiveResult:
    """Speak a synthetic sound as a microphone delivers it, frame by frame at its time.

    Every frame is made: nothing in the sound is silent. What is late is left out, as in a live stream.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        job: Frame rate, context, batch sizes and sharpening.
        options: Lengths and sizes.
        notice: Told what comes next.
        handle: Ends it early, from outside; runs that were not begun are left out.

    Raises:
        MuseTalkError: The device is not there, the model cannot be loaded, or the sizes do not fit.
    """
    bundle, avatar = open_synthetic(run, options.sizes, notice)
    clock = MonotonicClock()
    reports = []
    for chunk in options.chunks:
        if handle.stop.is_set():
            break
        notice(f"speaking {options.seconds:g} s in chunks of {float(chunk):g} s")
        engine = make_engine(bundle, dataclasses.replace(job, chunk=chunk), clock, live=True)
        reports.append(_speak(engine, avatar, options.seconds, handle))
        engine.end()
    return LiveResult(reports, bundle.random)


def _speak(engine: Engine, avatar: Avatar, seconds: float, handle: ControlHandle) -> Report:
    source = microphone(synthetic_sound(min(seconds, SPOKEN_S)), seconds, engine.stats.clock)
    return speak_synthetic(engine, avatar, source, handle)
