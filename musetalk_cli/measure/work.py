"""What some work launches, computes and moves, counted by operator: a count, and no time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PRODUCTS = ("convolution", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention")
"""Operators that are sums of products; the arithmetic of all others is not counted."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One operator.

    Attributes:
        name: Which.
        flops: Floating-point operations, where it is a sum of products; a product and a sum are two.
        bytes: Read and written: each input once, each output once.
        written: Of them written.
        inputs: How many tensors it reads.
    """

    name: str
    flops: int
    bytes: int
    written: int
    inputs: int


@dataclass(slots=True)
class Work:
    """What was launched.

    An operator counts as one launch. A real device may take several kernels for one, and keep in its cache
    what another reads next.

    Attributes:
        launches: Each operator, in order.
    """

    launches: list[Launch] = field(default_factory=list)

    def __call__(self, name: str, read: Sequence[Tensor], written: Sequence[Tensor]) -> None:
        """Take one operator, with the tensors that it reads and writes."""
        gives = sum(map(occupied, written))
        moved = gives + sum(map(occupied, read))
        self.launches.append(Launch(name, flops(name, read, written), moved, gives, len(read)))

    @property
    def flops(self) -> int:
        """Floating-point operations of all sums of products."""
        return sum(launch.flops for launch in self.launches)

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return sum(launch.bytes for launch in self.launches)

    def by_name(self) -> dict[str, tuple[int, int, int]]:
        """Launches, floating-point operations and bytes by operator, those with most bytes first."""
        count, work, moved = Counter[str](), Counter[str](), Counter[str]()
        for launch in self.launches:
            count[launch.name] += 1
            work[launch.name] += launch.flops
            moved[launch.name] += launch.bytes
        return {name: (count[name], work[name], total) for name, total in moved.most_common()}


def flops(name: str, read: Sequence[Tensor], written: Sequence[Tensor]) -> int:
    """Twice the products that are summed; 0 for an operator that is no sum of products."""
    if name == "convolution":
        return 2 * written[0].numel() * math.prod(read[1].shape[1:])
    if name == "scaled_dot_product_attention":
        query, key, value = read[:3]
        return 2 * query[..., 0].numel() * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    if name in PRODUCTS:
        return 2 * written[0].numel() * read[-1].shape[-2]
    return 0


def occupied(tensor: Tensor) -> int:
    """Bytes of a tensor's elements; those that an expanded dimension repeats are there once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride) * tensor.element_size()
