"""Ways that take turns, so that whatever else the machine does meets all of them, and what they speak."""

from __future__ import annotations

import statistics
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

SAMPLE = Path(__file__).parents[1] / "avatars" / "demo" / "sample.wav"
T = TypeVar("T")


def medians(
    ways: Sequence[Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Median seconds of each way; the first turn of each is not counted.

    Args:
        ways: What is timed.
        rounds: How often each is timed.
        clock: `time.thread_time` counts one core's work alone.
    """
    taken: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, seconds in zip(ways, taken, strict=True):
            begun = clock()
            way()
            if number:
                seconds.append(clock() - begun)
    return [statistics.median(seconds) for seconds in taken]


def in_turn(ways: Sequence[T], number: int) -> list[T]:
    """The order of a round, which turns by one from round to round: a machine that drifts does so for all."""
    turn = number % len(ways)
    return [*ways[turn:], *ways[:turn]]


def stretches(folder: Path, count: int, seconds: float) -> list[Path]:
    """Write stretches of the demo's sample, from the beginning again where it ends; gives their paths."""
    with wave.open(str(SAMPLE)) as sample:
        form, data = sample.getparams(), sample.readframes(sample.getnframes())
    width = form.sampwidth * form.nchannels
    size = int(seconds * form.framerate) * width
    data *= max(1, -(-size // len(data)))
    found = []
    for number in range(count):
        begin = number * size % max(1, len(data) - size)
        begin -= begin % width
        found.append(folder / f"{number:03d}.wav")
        with wave.open(str(found[-1]), "wb") as part:
            part.setparams(form)
            part.writeframes(data[begin : begin + size])
    return found
