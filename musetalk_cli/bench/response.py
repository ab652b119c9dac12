"""The benchmark of the response time: a stream that listens is sent utterances with pauses between them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.ideal import simulate
from musetalk_cli.bench.options import ResponseOptions, Sending
from musetalk_cli.bench.screen import Screen
from musetalk_cli.bench.speech import Script, Sender, utterances
from musetalk_cli.bench.stream import open_synthetic
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.errors import InputError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.live.ends import Ends
from musetalk_cli.live.observe import Outcome
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import Percentiles
from musetalk_cli.run.job import choose_chunk, make_engine, run_session, settings
from musetalk_cli.run.report import Report, make_report
from musetalk_cli.sources import ListenSource
from musetalk_cli.timeline import SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class ResponseRun:
    """What one run did.

    Attributes:
        sending: How the sound was sent.
        sent: Utterances that were sent.
        whole: Utterances whose sound came with the frames as it was sent, with nothing between.
        sent_to_shown_ms: From the sending of an utterance's first sound to the first frame that speaks it at
            a watched sink, as the sender and the sink saw it.
        delay_ms: How much later the frames of an utterance were shown than their sound, had it been played
            from its sending on.
        outcome: What the stream did.
        report: The stream's own figures; None where time was simulated.
    """

    sending: Sending
    sent: int
    whole: int
    sent_to_shown_ms: Percentiles
    delay_ms: Percentiles
    outcome: Outcome
    report: Report | None

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values: the report, or as much of it as is known, and the rest."""
        outcome = self.outcome
        plain: dict[str, object] = {
            "sending": self.sending,
            "sent": self.sent,
            "whole": self.whole,
            "sent_to_shown_ms": asdict(self.sent_to_shown_ms),
            "delay_ms": asdict(self.delay_ms),
        }
        if self.report is not None:
            return plain | self.report.as_json()
        return plain | {
            "chunk_s": outcome.latencies.chunk_s,
            "frames": outcome.frames,
            "response_ms": asdict(outcome.latencies.worst_response()),
            "mouth_to_eye_ms": asdict(outcome.latencies.worst_mouth_to_eye()),
            "utterances": outcome.utterances,
            "stalls": outcome.stalls,
            "short_frames": outcome.short,
            "dropped_frames": outcome.dropped,
        }


@dataclass(frozen=True, slots=True)
class ResponseResult:
    """What was measured.

    Attributes:
        runs: Each length of chunk with each way of sending.
        pause_s: Seconds of silence between utterances, at the least.
        random_weights: True where the weights are random numbers.
        ideal: True where the device took no time, and time was simulated.
    """

    runs: list[ResponseRun]
    pause_s: float
    random_weights: bool
    ideal: bool

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        return {
            "pause_s": self.pause_s,
            "random_weights": self.random_weights,
            "ideal": self.ideal,
            "runs": [run.as_json() for run in self.runs],
        }


@torch.inference_mode()
def bench_response(
    run: RunConfig,
    job: JobConfig,
    options: ResponseOptions,
    notice: Callable[[str], None],
    handle: ControlHandle,
) -> ResponseResult:
    """Say utterances to a stream that listens on this machine, against the wall clock.

    The sound comes over TCP from a thread of its own, and somebody watches.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        job: Frame rate, context, batch sizes, sharpening and silence.
        options: What is said, and the sizes.
        notice: Told what comes next.
        handle: Ends it early, from outside; runs that were not begun are left out.

    Raises:
        MuseTalkError: The device is not there, the model cannot be loaded, or the sizes do not fit.
    """
    bundle, avatar = open_synthetic(run, options.sizes, notice)
    clock = MonotonicClock()
    script = Script.of(utterances(), options.utterances, options.pause_s)
    runs: list[ResponseRun] = []
    for chunk, sending in itertools.product(options.chunks, options.sendings):
        if handle.stop.is_set():
            break
        asked = replace(job, chunk=chunk or job.chunk, auto_chunk=chunk is None)
        engine = make_engine(bundle, asked, clock, live=True)
        engine.warm_up(avatar)
        choose_chunk(engine)
        seconds = float(engine.job.chunk)
        notice(f"{_what(script, sending)}, in chunks of {seconds:g} s, {script.end_s:.0f} s")
        runs.append(speak_script(engine, avatar, script, sending, handle))
        engine.end()
    return ResponseResult(runs, options.pause_s, bundle.random, ideal=False)


def bench_ideal(job: JobConfig, options: ResponseOptions, notice: Callable[[str], None]) -> ResponseResult:
    """Say the same to a stream on a device that takes no time, on a simulated clock: the design's own delays.

    Args:
        job: Frame rate, context and silence.
        options: What is said.
        notice: Told what comes next.

    Raises:
        InputError: A length of chunk is left open.
    """
    script = Script.of(utterances(), options.utterances, options.pause_s)
    runs = []
    for chunk, sending in itertools.product(options.chunks, options.sendings):
        if chunk is None:
            raise InputError("A device that takes no time sustains any --chunk.", "Say how long it is.")
        notice(f"{_what(script, sending)}, in chunks of {float(chunk):g} s, {script.end_s:.0f} simulated s")
        outcome, sent, screen = simulate(replace(job, chunk=chunk), script, sending)
        runs.append(_measured(sending, sent, screen, outcome, None))
    return ResponseResult(runs, options.pause_s, random_weights=False, ideal=True)


def _what(script: Script, sending: Sending) -> str:
    return f"utterances {'in bursts' if sending == 'burst' else 'as spoken'}: {len(script.starts)}"


def speak_script(
    engine: Engine, avatar: Avatar, script: Script, sending: Sending, handle: ControlHandle
) -> ResponseRun:
    """Say a script to a stream that listens, and watch it.

    Args:
        engine: What makes the frames; it has warmed up, and its chunk is chosen.
        avatar: Who speaks.
        script: What is said, and when.
        sending: How the sound is sent.
        handle: Ends it early, from outside.
    """
    clock, job = engine.stats.clock, engine.job
    source = ListenSource("127.0.0.1:0", SAMPLE_RATE, 1, clock)
    sender = Sender(source.address, script, sending, clock, source.close)
    screen = Screen(clock, script, sender.begin)
    policy = StreamPolicy.of_stream(source, [screen], job.when_late, job.chunk)
    try:
        ends = Ends(source, [screen], handle.stop)
        outcome = run_session(engine, avatar, job.silence, None, policy, ends, handle)
    finally:
        source.close()
        sender.end()
    report = make_report(engine, outcome, float(job.fps), settings(engine, job, avatar.meta.name))
    return _measured(sending, sender.sent, screen, outcome, report)


def _measured(
    sending: Sending,
    sent: Sequence[float],
    screen: Screen,
    outcome: Outcome,
    report: Report | None,
) -> ResponseRun:
    answers, delays = Percentiles.of(screen.answers(sent)), Percentiles.of(screen.delays(sent))
    return ResponseRun(sending, len(sent), screen.ear.whole, answers, delays, outcome, report)
