"""A stream on a device that takes no time: what is left of its delays is the design's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from musetalk_cli.bench.options import Sending
from musetalk_cli.bench.screen import Screen
from musetalk_cli.bench.simulation import Shown, SimulatedClock, Simulation
from musetalk_cli.bench.speech import Script
from musetalk_cli.bench.stand_in import Grey, deaf, stand_in
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.observe import Observer, Outcome
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.timeline import SAMPLE_RATE
from musetalk_cli.types import AudioBlock, Delivery

BLOCK_SAMPLES = SAMPLE_RATE // 20
"""The most that a source gives at once, as `--listen` does."""


def sent(script: Script, sending: Sending) -> Iterator[tuple[float, AudioBlock]]:
    """What a script says as it comes: seconds, and blocks."""
    for packet in script.packets(sending):
        for first in range(0, len(packet.samples), BLOCK_SAMPLES):
            yield packet.at, AudioBlock(packet.samples[first : first + BLOCK_SAMPLES], packet.at)


@torch.inference_mode()
def simulate(job: JobConfig, script: Script, sending: Sending) -> tuple[Outcome, list[float], Screen]:
    """Show what a script says on a device that takes no time.

    Args:
        job: Frame rate, chunk, context and silence.
        script: What is said.
        sending: How it is sent.

    Returns:
        The figures of the stream, when the first sound of each utterance was sent, and what was shown.
    """
    # what is shown while the engine works has its own time
    clock, showing = SimulatedClock(), SimulatedClock()
    screen = Screen(showing, script)
    policy = StreamPolicy.of_delivery(Delivery.LIVE, job.when_late, job.chunk, watched=True)
    job = replace(job, image_ops="cpu", sharpen=None)
    bundle = stand_in()
    engine = Engine(bundle, job, StageStats(clock), encode=deaf, generator=Grey(bundle), live=True)
    observer = Observer(clock, float(job.chunk), SAMPLE_RATE)

    def show(shown: Shown) -> None:
        showing.time = shown.at
        observer.handed(screen.name, shown.frame, shown.at, watched=True)
        screen.write(shown.frame)
        observer.presented(shown.frame, shown.planned)

    stream = Simulation(
        engine,
        clock,
        synthetic_avatar(96, 72, 40, 3),
        job.silence,
        policy,
        SAMPLE_RATE,
        show,
        observer.stalled,
    )
    stream.run(sent(script, sending), script.end_s)
    return observer.end(held=0, breaks=0, lost_samples=0), script.sent(sending), screen
