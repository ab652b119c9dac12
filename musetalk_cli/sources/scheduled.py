"""A source that goes on whether sound comes or not: what comes, and silence in its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.sources.schedule import Schedule
from musetalk_cli.types import AudioBlock

Receive = Callable[[int, float], "AudioBlock | None"]
"""Waits so many seconds at most for so many samples at most; an empty block stands for discarded ones."""


def on_schedule(
    receive: Receive, sample_rate: int, channels: int, clock: Clock, closed: threading.Event
) -> Iterator[AudioBlock]:
    """Yield what is received until `closed` is set, and silence where nothing comes in time.

    Args:
        receive: Where the sound comes from.
        sample_rate: Samples per second.
        channels: Channels of every block.
        clock: Where time comes from.
        closed: Ends it.
    """
    schedule = Schedule(sample_rate, clock.now())
    while not closed.is_set():
        now = clock.now()
        block = receive(schedule.room(now), schedule.wait(now))
        if block is not None:
            schedule.take(len(block.samples), block.arrived)
            if len(block.samples):
                yield block
            continue
        now = clock.now()
        if samples := schedule.silence(now):
            yield AudioBlock(np.zeros((samples, channels), np.float32), now)
