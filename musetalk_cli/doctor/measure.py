"""What this machine can do with a model, measured in some seconds on an avatar that is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.options import AvatarSizes
from musetalk_cli.bench.response import speak_script
from musetalk_cli.bench.speech import Script, utterances
from musetalk_cli.bench.stream import open_synthetic
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.doctor.findings import Finding
from musetalk_cli.engine.costs import BUSY_SHARE
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.nets.embedded import DEMO
from musetalk_cli.run.job import choose_chunk, make_engine
from musetalk_cli.text import counted
from musetalk_cli.timeline import DEFAULT_FPS

UTTERANCES, PAUSE_S = 3, 0.5
SIZES = AvatarSizes(width=1280, height=720, face=300, frames=25)
"""Pictures as cameras make them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        what: The model, the device and the number format, in words.
        fps: The frame rate that is wanted.
        frames_per_s: Frames that the machine makes in a second of nothing else.
        sustained: It makes the wanted ones in time, with some to spare.
        chunk_s: Seconds of the hops in which it does.
        response_ms: From an utterance's first sound to its first speaking frame, the median; None where that
            was not tried, since it does not keep up.
        speakers: Faces that may speak at once.
    """

    what: str
    fps: Fraction
    frames_per_s: float
    sustained: bool
    chunk_s: float
    response_ms: float | None
    speakers: int


def check_speed(measured: Measured) -> Iterator[Finding]:
    """What the figures mean for somebody who wants to speak live."""
    rate = f"{measured.frames_per_s:.3g} frames/s with {measured.what}"
    wanted = f"real time at {float(measured.fps):g} fps"
    if not measured.sustained:
        smaller = "" if measured.what.startswith(f"{DEMO} ") else f" --model {DEMO},"
        fix = f"Use a GPU (--device cuda),{smaller} or generate, which may take its time."
        yield Finding("speed", "warning", f"{rate}; {wanted}: no.", fix)
        yield Finding("response time", "warning", "Not measured: frames would be dropped.", None)
        yield Finding("speakers", "warning", "None speaks in real time.", None)
        return
    yield Finding("speed", "ok", f"{rate}; {wanted}: yes.")
    if measured.response_ms is not None:
        detail = (
            f"{measured.response_ms:.0f} ms to the first speaking frame, in chunks of {measured.chunk_s:g} s."
        )
        yield Finding("response time", "ok", detail)
    yield Finding("speakers", "ok", f"{counted(measured.speakers, 'face')} may speak at once.")


@torch.inference_mode()
def measure(run: RunConfig, notice: Callable[[str], None]) -> Measured:
    """Load a model, warm up, and answer some short utterances.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        notice: Told what comes next.

    Raises:
        MuseTalkError: The device is not there, or the model cannot be loaded.
    """
    bundle, avatar = open_synthetic(run, SIZES, notice)
    job = JobConfig(auto_chunk=True, fps=DEFAULT_FPS)
    engine = make_engine(bundle, job, MonotonicClock(), live=True)
    notice("measuring the networks")
    engine.warm_up(avatar)
    speakers = _speakers(engine, avatar)
    chunk, costs = engine.job.chunk, engine.costs
    sustained = costs.sustains(chunk, job.fps)
    response = _response_ms(engine, avatar, notice) if sustained else None
    format_ = str(bundle.dtype).removeprefix("torch.")
    what = f"{bundle.name} on {bundle.device} in {format_}"
    share = costs.share(chunk, job.fps)
    rate = float(job.fps) / share if share > 0 else float("inf")
    return Measured(what, job.fps, rate, sustained, float(chunk), response, speakers)


def _speakers(engine: Engine, avatar: Avatar) -> int:
    """As many as the service would take; where that is not installed, as many as the networks alone allow.

    The length of a chunk is settled besides.
    """
    try:
        from musetalk_cli.serve.capacity import settle
    except ImportError:
        choose_chunk(engine)
        share = engine.costs.share(engine.job.chunk, engine.job.fps)
        return max(1, int(BUSY_SHARE / share)) if share > 0 else 1
    return settle(engine, avatar, None).speakers


def _response_ms(engine: Engine, avatar: Avatar, notice: Callable[[str], None]) -> float:
    script = Script.of(utterances(), UTTERANCES, PAUSE_S)
    notice(f"answering {UTTERANCES} utterances, {script.end_s:.0f} s")
    run = speak_script(engine, avatar, script, "burst", ControlHandle())
    return run.outcome.latencies.worst_response().p50
