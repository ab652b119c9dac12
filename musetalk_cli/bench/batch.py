"""What was measured of one batch size."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from musetalk_cli.bench.measure import Reached
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.costs import BUSY_SHARE, Costs

ON_CPU, ON_GPU, TENSORS, FUSED = "cpu", "gpu", "tensor", "fused"
"""How image steps are done: in OpenCV and numpy, as tensor operations on a GPU or a CPU, in one launch."""


def sessions_of(costs: Costs, job: JobConfig) -> int:
    """How many streams may speak at once, with some of the time to spare."""
    share = costs.share(job.chunk, job.fps)
    return int(BUSY_SHARE / share) if share > 0 else 0


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage of a batch.

    Attributes:
        name: Which; `features` is one encoder window.
        ms: Milliseconds for the whole batch.
        share: Of the sum of all stages, 0..1.
        gflop: Its matrix products, convolutions and attention, in 10^9 operations.
        mbytes: What it must move at the least, in 10^6 bytes: weights, what it is given and what it gives.
        reached: What it reached of what the hardware can; None where it has nothing to do.
    """

    name: str
    ms: float
    share: float
    gflop: float
    mbytes: float
    reached: Reached | None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One batch size, in milliseconds for the whole batch.

    Attributes:
        size: Frames in the batch.
        unet_ms: The UNet.
        vae_ms: The VAE's decoder, up to uint8 faces.
        graph_ms: Both as CUDA graphs, with their inputs' way into them; None where there are none.
        image_ms: Each image step, up to patches in host memory, by where it runs: `cpu` in OpenCV and numpy,
            the copy of the faces included; `gpu` as tensor operations on the GPU; `tensor` the same on a CPU.
            Of the last two one is not there. `fused` is there where the engine does all steps in one launch;
            `compose` is that and the way to the host.
        stages: All stages with the fastest image path, and one encoder window.
        frames_per_s: Frames a second of UNet and VAE, as graphs where that is faster, and the fastest image
            path.
        sessions: How many may speak at once by that, each with its windows, and some time to spare.
        roofline_fps: Frames a second of UNet and VAE at the rates of the matrix product and the copy.
        roofline_share: What UNet and VAE reached of that.
        published_image_ms: What follows the VAE in the published order of work; None where it was left out.
    """

    size: int
    unet_ms: float
    vae_ms: float
    graph_ms: float | None
    image_ms: dict[str, dict[str, float]]
    stages: list[StageResult]
    frames_per_s: float
    sessions: int
    roofline_fps: float
    roofline_share: float
    published_image_ms: float | None

    @property
    def networks_ms(self) -> float:
        """UNet and VAE, as a stream launches them."""
        return min(self.unet_ms + self.vae_ms, self.graph_ms or float("inf"))

    @property
    def device_path(self) -> str:
        """Where the image steps run as tensor operations."""
        return ON_GPU if ON_GPU in self.image_ms else TENSORS

    @property
    def speed_up(self) -> float:
        """How many times faster the image steps are as tensor operations."""
        return sum(self.image_ms[ON_CPU].values()) / sum(self.image_ms[self.device_path].values())

    @property
    def published_fps(self) -> float | None:
        """Frames a second in the published order of work."""
        if self.published_image_ms is None:
            return None
        return 1e3 * self.size / (self.unet_ms + self.vae_ms + self.published_image_ms)

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        return asdict(self) | {"speed_up": self.speed_up, "published_fps": self.published_fps}
