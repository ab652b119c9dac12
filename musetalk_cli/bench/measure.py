"""Timers, and what the hardware can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from musetalk_cli.nets.device import wait_for

WARM_UPS = 2


def median_s(work: Callable[[], object], device: torch.device, budget_s: float) -> float:
    """Median seconds of a call, device work included.

    Called until the budget is spent, at least once; a first call longer than the budget is the figure.
    """
    if device.type == "cuda":
        _once(work, device)  # what a kernel's first use costs is not its speed
    first = _once(work, device)
    if first > budget_s:
        return first
    for _ in range(WARM_UPS):
        _once(work, device)
    times: list[float] = []
    while not times or (sum(times) < budget_s and len(times) < 200):
        times.append(_once(work, device))
    return sorted(times)[len(times) // 2]


def _once(work: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class Roofline:
    """What the hardware did at best in this run.

    Attributes:
        tflops: 10^12 floating point operations a second, in one large matrix product.
        gbytes_per_s: 10^9 bytes a second read and written, in one large copy.
    """

    tflops: float
    gbytes_per_s: float

    def seconds(self, flops: float, read: float) -> float:
        """The least time for so many operations that must read so many bytes."""
        return max(flops / (self.tflops * 1e12), read / (self.gbytes_per_s * 1e9))


def measure_roofline(device: torch.device, dtype: torch.dtype, budget_s: float) -> Roofline:
    """Time one large matrix product in the networks' number format, and one large copy."""
    on_cuda = device.type == "cuda"
    side = 8192 if on_cuda else 2048
    one = torch.randn(side, side, device=device).to(dtype)
    product_s = median_s(lambda: one @ one, device, budget_s)
    data = torch.ones((1 << 30) if on_cuda else (1 << 27), dtype=torch.uint8, device=device)
    target = torch.empty_like(data)
    copy_s = median_s(lambda: target.copy_(data), device, budget_s)
    return Roofline(2 * side**3 / product_s / 1e12, 2 * data.numel() / copy_s / 1e9)


def count_flops(work: Callable[[], object]) -> int:
    """Floating point operations of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
