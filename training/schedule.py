"""What the three stages share: the learning rate over time, and a line of progress."""

from __future__ import annotations

import math
import sys
import time

import torch


class Schedule:
    """Warm-up, then a cosine down to a hundredth.

    Args:
        optimiser: Stepped with the schedule.
        peak: The highest learning rate.
        steps: Length of the whole.
        warm_up: Steps in which the rate rises to the peak.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, peak: float, steps: int, warm_up: int) -> None:
        self._optimiser, self._peak, self._steps, self._warm_up = optimiser, peak, steps, warm_up
        self._taken = 0

    @property
    def progress(self) -> float:
        """How much of the training is over, 0..1."""
        return self._taken / self._steps

    def step(self) -> None:
        """Take an optimiser step at the rate whose turn it is."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))
        rate = self._peak * min(1.0, (self._taken + 1) / self._warm_up) * (0.99 * cosine + 0.01)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._taken += 1


def report(stage: str, step: int, steps: int, started: float, **figures: object) -> None:
    """One line about a stage on stderr."""
    shown = ", ".join(f"{name} {_short(value)}" for name, value in figures.items())
    elapsed = time.monotonic() - started
    print(f"{stage}: step {step} of {steps}, {elapsed:.0f} s, {shown}", file=sys.stderr, flush=True)


def _short(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
