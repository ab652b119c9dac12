"""Timers, and what the hardware can do at best."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from musetalk_cli.nets.device import wait_for

WARM_UPS = 2
SIDES = (512, 1024, 2048, 4096, 8192)
"""Rows and columns of the matrices, one of which is taken."""
BYTES = (1 << 27, 1 << 28, 1 << 29, 1 << 30)
"""Sizes of the copy, one of which is taken: none fits into a cache."""
LONG_S = 0.05
"""Seconds of a product or a copy that is long enough."""
Bound = Literal["matrix", "memory", "link"]
"""What limits some work at the least: arithmetic, the device's memory, or the way to host memory."""


def median_s(work: Callable[[], object], device: torch.device, budget_s: float) -> float:
    """Median seconds of a call, device work included.

    Called until the budget is spent, at least once; a first call longer than the budget is the figure.
    """
    if device.type != "cpu":
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
class Reached:
    """What a stage reached of what the hardware can.

    Attributes:
        bound: What limits it.
        rate: 10^12 operations a second where that is arithmetic, else 10^9 bytes a second.
        share: Of the hardware's best in the same run, 0..1.
    """

    bound: Bound
    rate: float
    share: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """What the hardware did at best in this run.

    Attributes:
        tflops: 10^12 floating point operations a second, in one large matrix product.
        gbytes_per_s: 10^9 bytes a second read and written, in one large copy.
        link_gbytes_per_s: 10^9 bytes a second from the device to pinned host memory; None on a CPU, where
            nothing has to go there.
    """

    tflops: float
    gbytes_per_s: float
    link_gbytes_per_s: float | None = None

    def seconds(self, flops: float, moved: float) -> float:
        """The least time for so many operations that must read and write so many bytes."""
        return max(flops / (self.tflops * 1e12), moved / (self.gbytes_per_s * 1e9))

    def reached(self, seconds: float, flops: float, moved: float, linked: float = 0.0) -> Reached | None:
        """What work that took so long reached of it; None where it had nothing to do.

        Args:
            seconds: How long it took.
            flops: Its floating point operations.
            moved: Bytes that it must read and write.
            linked: Bytes that it must bring to host memory.
        """
        matrix, memory = flops / (self.tflops * 1e12), moved / (self.gbytes_per_s * 1e9)
        link = linked / (self.link_gbytes_per_s * 1e9) if self.link_gbytes_per_s else 0.0
        least = max(matrix, memory, link)
        if least <= 0 or seconds <= 0:
            return None
        if least == matrix:
            return Reached("matrix", flops / seconds / 1e12, least / seconds)
        if least == memory:
            return Reached("memory", moved / seconds / 1e9, least / seconds)
        return Reached("link", linked / seconds / 1e9, least / seconds)


def measure_roofline(device: torch.device, dtype: torch.dtype, budget_s: float) -> Roofline:
    """Time one large matrix product in the networks' number format, one large copy, and one to the host."""

    def product(side: int) -> Callable[[], object]:
        one = torch.randn(side, side, device=device).to(dtype)
        return lambda: one @ one

    def copy(size: int) -> Callable[[], object]:
        data = torch.ones(size, dtype=torch.uint8, device=device)
        target = torch.empty_like(data)
        return lambda: target.copy_(data)

    side = _large(product, device, SIDES)
    size = _large(copy, device, BYTES)
    product_s = median_s(product(side), device, budget_s)
    copy_s = median_s(copy(size), device, budget_s)
    link = _link(device, budget_s) if device.type == "cuda" else None
    return Roofline(2 * side**3 / product_s / 1e12, 2 * size / copy_s / 1e9, link)


def _large(make: Callable[[int], Callable[[], object]], device: torch.device, sizes: Sequence[int]) -> int:
    """The first size that takes so long that starting it is nothing beside it, or the last."""
    return next((size for size in sizes if median_s(make(size), device, 0.0) > LONG_S), sizes[-1])


def _link(device: torch.device, budget_s: float) -> float:
    """10^9 bytes a second from a device to pinned host memory."""
    data = torch.ones(BYTES[1], dtype=torch.uint8, device=device)
    pinned = torch.empty(data.shape, dtype=torch.uint8, pin_memory=True)
    seconds = median_s(lambda: pinned.copy_(data, non_blocking=True), device, budget_s)
    return data.numel() / seconds / 1e9


def count_flops(work: Callable[[], object]) -> int:
    """Floating point operations of the matrix products, convolutions and attention in a call."""
    with FlopCounterMode(display=False, custom_mapping=_ON_CPU) as counter:
        work()
    return int(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *_: object, **__: object) -> int:  # noqa: ANN401 - shapes
    """Attention is a product of queries and keys, and one of that and the values; shapes `[B, H, N, D]`."""
    batch, heads, rows, depth = query
    return int(2 * batch * heads * rows * key[-2] * (depth + value[-1]))


_ON_CPU = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}  # noqa: SLF001
"""Fused attention of a CPU, which PyTorch's counter does not know."""
