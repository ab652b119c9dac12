"""The numbers behind resize and blur: neighbours, weights and kernels, computed once for each size."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indexes = NDArray[np.int64]


@lru_cache(maxsize=512)
def linear_taps(src: int, dst: int, whole_edges: bool) -> tuple[Indexes, NDArray[np.float32]]:
    """Two neighbours and their weights for each of `dst` places on `src` pixels, as OpenCV computes them.

    Positions are rounded to float32. Beyond an edge OpenCV gives the edge pixel the whole weight along
    columns (`whole_edges`), but takes it twice, by parts, along rows, which its integers round otherwise.

    Returns:
        Indexes `[2, dst]`, and float32 weights `[2, dst]` of sum 1.
    """
    scale = 1.0 / (dst / src)
    at = ((np.arange(dst) + 0.5) * scale - 0.5).astype(np.float32)
    left = np.floor(at).astype(np.int64)
    part = at - left.astype(np.float32)
    if whole_edges:
        part[(left < 0) | (left >= src - 1)] = 0
    sides = np.clip(np.stack([left, left + 1]), 0, src - 1)
    return sides, np.stack([np.float32(1) - part, part])


def fixed_point(weights: NDArray[Any]) -> NDArray[np.int32]:
    """OpenCV's integer weights of a uint8 resize: times 2 ** 11, rounded half to even."""
    fixed: NDArray[np.int32] = np.rint(weights * np.float32(2048)).astype(np.int32)
    return fixed


@lru_cache(maxsize=512)
def nearest_taps(src: int, dst: int) -> Indexes:
    """The pixel of `src` for each of `dst` places: the scaled place rounded down, as OpenCV has it."""
    at: Indexes = np.floor(np.arange(dst) * (1.0 / (dst / src))).astype(np.int64)
    return np.clip(at, 0, src - 1)


@lru_cache(maxsize=512)
def reflected(size: int, radius: int) -> Indexes:
    """Indexes of `size` pixels and `radius` more on both sides, reflected as often as it takes.

    The edge pixel is not repeated (OpenCV's `BORDER_REFLECT_101`).
    """
    at = np.abs(np.arange(-radius, size + radius)) % max(1, 2 * (size - 1))
    return np.where(at < size, at, 2 * (size - 1) - at)


def kernel_size(sigma: float, reach: int) -> int:
    """Taps of a Gaussian kernel, odd: OpenCV's rule for a size not given, `round(2 * reach * sigma + 1) | 1`.

    Args:
        sigma: Standard deviation in pixels.
        reach: Standard deviations to each side: 3 for uint8 images, 4 for all others.
    """
    return round(sigma * reach * 2 + 1) | 1


@lru_cache(maxsize=64)
def gaussian(sigma: float, reach: int) -> tuple[float, ...]:
    """Weights of a Gaussian kernel, of sum 1; arguments as for `kernel_size`."""
    taps = kernel_size(sigma, reach)
    places = [i - taps // 2 for i in range(taps)]
    weights = [math.exp(-x * x / (2 * sigma * sigma)) if x else 1.0 for x in places]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


@lru_cache(maxsize=64)
def gaussian_levels(sigma: float) -> tuple[float, ...]:
    """Weights of OpenCV's uint8 kernel: 256ths, each rounded with the error of those before; sum 256."""
    kernel = gaussian(sigma, 3)
    half: list[float] = []
    error = 0.0
    for weight in kernel[: len(kernel) // 2]:
        wanted = weight * 256 + error
        half.append(float(round(wanted)))
        error = wanted - half[-1]
    return (*half, 256 - 2 * sum(half), *reversed(half))
