"""What data sheets say of GPUs, and a model of the time that counted work takes on them: no measurement.

The model: a kernel takes 3 us at the least, or its arithmetic at 65 % of the data sheet's peak, or its bytes
at 85 % of the data sheet's memory bandwidth, whichever is longest; one follows the other. What overlaps, and
what a cache keeps, is left out. An operator is one kernel, but for two of PyTorch's on CUDA (`_kernels`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from musetalk_cli.measure.work import Launch, Work

GpuName = Literal["h200", "h100", "a100"]


@dataclass(frozen=True, slots=True)
class DataSheet:
    """What its maker says of a GPU.

    Attributes:
        name: In full.
        tflops: 10^12 operations a second in fp16 or bf16 matrix products, without sparsity.
        gbytes_per_s: 10^9 bytes a second from its memory.
        source: The document.
    """

    name: str
    tflops: float
    gbytes_per_s: float
    source: str


DATA_SHEETS: dict[GpuName, DataSheet] = {
    "h200": DataSheet(
        "NVIDIA H200 SXM", 989.5, 4800, "NVIDIA H200 Tensor Core GPU datasheet (half of 1979 with sparsity)"
    ),
    "h100": DataSheet(
        "NVIDIA H100 SXM", 989.5, 3350, "NVIDIA H100 Tensor Core GPU datasheet (half of 1979 with sparsity)"
    ),
    "a100": DataSheet(
        "NVIDIA A100 80GB SXM", 312, 2039, "NVIDIA A100 Tensor Core GPU datasheet (without sparsity)"
    ),
}


@dataclass(frozen=True, slots=True)
class TimeModel:
    """How long counted work takes, by what is assumed of the GPU.

    Attributes:
        sheet: The GPU.
        matrix_share: Share of its peak that matrix products reach.
        memory_share: Share of its memory bandwidth that operators reach.
        launch_s: Seconds that an operator takes at the least.
    """

    sheet: DataSheet
    matrix_share: float = 0.65
    memory_share: float = 0.85
    launch_s: float = 3e-6

    def seconds(self, work: Work) -> float:
        """Seconds that some work takes."""
        flops_per_s = self.sheet.tflops * 1e12 * self.matrix_share
        bytes_per_s = self.sheet.gbytes_per_s * 1e9 * self.memory_share
        return sum(
            max(self.launch_s, flops / flops_per_s, moved / bytes_per_s)
            for launch in work.launches
            for flops, moved in _kernels(launch)
        )


def kernel_count(work: Work) -> int:
    """Kernels that some work launches on CUDA."""
    return sum(len(list(_kernels(launch))) for launch in work.launches)


def _kernels(launch: Launch) -> Iterator[tuple[int, int]]:
    """The kernels of an operator on CUDA: operations and bytes of each.

    A convolution adds its bias in a kernel of its own. A group norm of channels-last activations is three,
    that read them twice, between copies to the other layout and back.
    """
    if launch.name == "convolution" and launch.inputs > 2:
        yield launch.flops, launch.bytes
        yield 0, 2 * launch.written
    elif launch.name == "native_group_norm":
        read = launch.bytes - launch.written
        yield from ((0, 2 * read), (0, read), (0, 0), (0, launch.bytes), (0, 2 * launch.written))
    else:
        yield launch.flops, launch.bytes
