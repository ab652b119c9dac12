"""A stream on a device that takes no time: what is left of its delays is the design's.

Source, session, engine and jitter buffer are the product's, and time is simulated. There are no threads:
sound is taken in when it comes, what it makes computable is made at once, and frames are shown on a clock of
their own, as by a thread that nothing holds up. So the figures are the same on every machine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import torch

from musetalk_cli.bench.options import Sending
from musetalk_cli.bench.screen import Screen
from musetalk_cli.bench.speech import Script
from musetalk_cli.bench.stand_in import deaf, stand_in
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session import SessionOptions
from musetalk_cli.live.jitter_buffer import JitterBuffer, PlayoutSchedule
from musetalk_cli.live.observe import Observer, Outcome
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.sources.scheduled import on_schedule
from musetalk_cli.timeline import SAMPLE_RATE
from musetalk_cli.types import AudioBlock, Delivery, Samples

SOON_S = 1e-9
"""Two moments that lie closer together are one."""


class SimulatedClock:
    """Time that goes on where somebody waits, and only there."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Seconds since the beginning."""
        return self._now

    def wait(self, seconds: float, wake: threading.Event) -> bool:
        """Let that much time pass; True where `wake` is set."""
        self._now += max(0.0, seconds)
        return wake.is_set()


class _ShowingClock(SimulatedClock):
    """The time of whoever shows frames: it runs ahead of the world's while the next frame is waited for."""

    def __init__(self, world: SimulatedClock) -> None:
        super().__init__()
        self._world = world

    def now(self) -> float:
        self._now = max(self._now, self._world.now())
        return self._now


class ScriptedSource:
    """What a script says, as a live source: received on schedule, in silence where nothing is said.

    Args:
        script: What is said.
        sending: How it is sent.
        clock: Where time comes from.
    """

    sample_rate = SAMPLE_RATE
    channels = 1
    lost_samples = 0
    delivery = Delivery.LIVE

    def __init__(self, script: Script, sending: Sending, clock: SimulatedClock) -> None:
        self._coming = deque(script.packets(sending))
        self._end_s = script.end_s
        self._clock = clock
        self._closed = threading.Event()
        self._ahead: deque[Samples] = deque()

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield the sound until all was said and shown."""
        return on_schedule(self._receive, SAMPLE_RATE, 1, self._clock, self._closed)

    def discard(self) -> None:
        """Nobody interrupts."""

    def close(self) -> None:
        """End the iteration at its next packet."""
        self._closed.set()

    def _receive(self, most: int, seconds: float) -> AudioBlock | None:
        if most <= 0 or not self._arrived():
            if self._coming:
                seconds = min(seconds, max(0.0, self._coming[0].at - self._clock.now()))
            self._clock.wait(seconds, self._closed)
        if self._clock.now() >= self._end_s:
            self.close()
        if most <= 0 or not self._arrived():
            return None
        samples = self._ahead.popleft()
        if len(samples) > most:
            self._ahead.appendleft(samples[most:])
        return AudioBlock(samples[:most], self._clock.now())

    def _arrived(self) -> bool:
        """Whether sound waits that has come by now."""
        while self._coming and self._coming[0].at <= self._clock.now() + SOON_S:
            self._ahead.append(self._coming.popleft().samples)
        return bool(self._ahead)


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
    clock = SimulatedClock()
    showing = _ShowingClock(clock)
    source, screen = ScriptedSource(script, sending, clock), Screen(showing, script)
    policy = StreamPolicy.of_stream(source, [screen], job.when_late, job.chunk)
    job = replace(job, image_ops="cpu", sharpen=None)
    bundle = stand_in()
    engine = Engine(bundle, job, StageStats(clock), encode=deaf)
    session = engine.open(
        synthetic_avatar(96, 72, 40, 3), job.fps, job.chunk, job.context, SAMPLE_RATE, 1,
        SessionOptions(job.silence, late_after_s=policy.late_after_s),
    )  # fmt: skip
    observer = Observer(clock, float(job.chunk), SAMPLE_RATE)
    buffer = JitterBuffer(1, showing, PlayoutSchedule(session.timeline, job.chunk), observer.stalled)
    shown = iter(buffer)

    def work() -> None:
        while engine.step() or session.untaken:
            while session.untaken:
                buffer.offer(session.take())
                frame, due = next(shown)
                observer.handed(screen.name, frame, showing.now(), watched=True)
                screen.write(frame)
                observer.presented(frame, due)

    for block in source:
        session.hear(block.samples, block.arrived)
        work()
    session.end_sound(clock.now())
    work()
    return observer.end(held=0, breaks=0, lost_samples=0), script.sent(sending), screen
