"""The benchmark: each stage by batch size, both image paths, the hardware's best, and a whole stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.measure import Roofline, count_flops, measure_roofline, median_s
from musetalk_cli.bench.options import BenchOptions
from musetalk_cli.bench.stream import open_synthetic, speak_synthetic
from musetalk_cli.bench.synthetic import SyntheticSource, synthetic_sound
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.compositor import CpuPath, GpuPath, StepByStep
from musetalk_cli.engine.engine import Engine
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.generator import Generator
from musetalk_cli.run.job import make_engine
from musetalk_cli.run.report import Report
from musetalk_cli.timeline import ROWS_PER_FRAME, ROWS_PER_SECOND, SAMPLE_RATE

IMAGE_STEPS = ("resize", "sharpen", "blend", "download")

Notice = Callable[[str], None]
"""Told what is measured next."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """One batch size, in milliseconds for the whole batch.

    Attributes:
        size: Frames in the batch.
        unet_ms: The UNet.
        vae_ms: The VAE's decoder, up to uint8 faces.
        gpu_ms: Each image step on tensors on the device, up to patches in host memory.
        cpu_ms: Each image step in OpenCV and numpy, the copy of the faces included.
        frames_per_s: Frames a second with the faster image path.
        roofline_fps: Frames a second of UNet and VAE at the rates of the matrix product and the copy.
        roofline_share: What UNet and VAE reached of that.
    """

    size: int
    unet_ms: float
    vae_ms: float
    gpu_ms: dict[str, float]
    cpu_ms: dict[str, float]
    frames_per_s: float
    roofline_fps: float
    roofline_share: float

    @property
    def speed_up(self) -> float:
        """How many times faster the image steps are on the device."""
        return sum(self.cpu_ms.values()) / sum(self.gpu_ms.values())


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Everything that was measured.

    Attributes:
        roofline: What the hardware did at best.
        gflop_per_frame: UNet and VAE decoder for one frame, in 10^9 operations.
        features_ms: One encoder window, of which a second is needed.
        batches: One entry per batch size.
        stream: Report of the whole stream, chunk by chunk, as fast as it goes.
        random_weights: True where the weights are random numbers.
    """

    roofline: Roofline
    gflop_per_frame: float
    features_ms: float
    batches: list[BatchResult]
    stream: Report
    random_weights: bool

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        batches = [dataclasses.asdict(batch) | {"speed_up": batch.speed_up} for batch in self.batches]
        return {
            "roofline": dataclasses.asdict(self.roofline),
            "gflop_per_frame": self.gflop_per_frame,
            "features_ms": self.features_ms,
            "batches": batches,
            "stream": self.stream.as_json(),
            "random_weights": self.random_weights,
        }


@torch.inference_mode()
def bench(run: RunConfig, job: JobConfig, options: BenchOptions, notice: Notice) -> BenchResult:
    """Measure every stage and the whole.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        job: Frame rate, chunk, batch sizes and sharpening; a batch of 1 is measured besides.
        options: Sizes of the synthetic input, and how long to measure.
        notice: Told what comes next.

    Raises:
        MuseTalkError: The device is not there, the model cannot be loaded, or the sizes do not fit.
    """
    bundle, avatar = open_synthetic(run, options, notice)
    engine = make_engine(bundle, job, MonotonicClock(), live=False)
    device, dtype = engine.bundle.device, engine.bundle.dtype
    notice("measuring the hardware")
    roofline = measure_roofline(device, dtype, options.budget_s)
    stages = _Stages(engine, avatar)
    gflop = count_flops(lambda: stages.decode(stages.unet(1))) / 1e9
    notice("measuring the features")
    second = EncodeRequest(np.zeros(SAMPLE_RATE, np.float32), range(ROWS_PER_SECOND), engine.window_rows)
    encode = AudioEncoder(engine.bundle)
    features_s = median_s(lambda: encode([second]), device, options.budget_s)
    batches = []
    for size in sorted({1, *engine.batch_sizes}):
        notice(f"measuring batches of {size}")
        batches.append(stages.measure(size, options.budget_s, gflop, roofline))
    seconds = options.seconds or (10.0 if device.type == "cuda" else 1.0)
    notice(f"speaking {seconds:g} s in chunks of {float(job.chunk):g} s")
    stream = _stream(engine, avatar, seconds)
    return BenchResult(roofline, gflop, features_s * 1e3, batches, stream, engine.bundle.random)


class _Stages:
    """The stages of one engine's bundle on one avatar, callable one by one."""

    def __init__(self, engine: Engine, avatar: Avatar) -> None:
        self._bundle = engine.bundle
        self._sharpen = engine.job.sharpen
        self._avatar = avatar
        self._generator = Generator(engine.bundle)
        self._latents = avatar.latents.to(self._bundle.device, self._bundle.dtype)
        self._tokens = torch.zeros(
            1, ROWS_PER_FRAME * self._bundle.layers, self._bundle.token_width, device=self._bundle.device
        )

    def unet(self, size: int) -> Tensor:
        """Predicted latents of a batch."""
        index = torch.arange(size, device=self._latents.device) % len(self._latents)
        return self._generator.unet(self._tokens.expand(size, -1, -1), self._latents[index])

    def decode(self, latents: Tensor) -> Tensor:
        """Faces of predicted latents."""
        return self._generator.decode(latents)

    def measure(self, size: int, budget_s: float, gflop: float, roofline: Roofline) -> BatchResult:
        """Time every stage at one batch size."""
        device = self._bundle.device
        predicted = self.unet(size)
        faces = self.decode(predicted)
        unet_s = median_s(lambda: self.unet(size), device, budget_s)
        vae_s = median_s(lambda: self.decode(predicted), device, budget_s)
        gpu_ms = self._image_steps(GpuPath(device, sharpen=self._sharpen), faces, budget_s)
        cpu_ms = self._image_steps(CpuPath(), faces, budget_s)
        best_s = min(sum(gpu_ms.values()), sum(cpu_ms.values())) / 1e3
        model_s, ideal_s = unet_s + vae_s, roofline.seconds(gflop * 1e9 * size, self._weight_bytes())
        frames_per_s = size / (model_s + best_s)
        return BatchResult(
            size, unet_s * 1e3, vae_s * 1e3, gpu_ms, cpu_ms, frames_per_s, size / ideal_s, ideal_s / model_s
        )

    def _weight_bytes(self) -> int:
        """What a batch reads of the weights, at the least."""
        nets = (self._bundle.unet, self._bundle.drawing.decoder)
        return sum(weight.nbytes for net in nets for weight in net.parameters())

    def _image_steps(self, path: StepByStep, faces: Tensor, budget_s: float) -> dict[str, float]:
        placed = [target for target in path.place(self._avatar) if target is not None]
        targets = [placed[number % len(placed)] for number in range(len(faces))]
        resized = path.resize(faces, targets)
        sharp = resized if self._sharpen is None else path.sharpen(resized, self._sharpen)
        patches = path.blend(sharp, targets)
        steps: dict[str, Callable[[], object]] = {
            "resize": lambda: path.resize(faces, targets),
            "sharpen": lambda: self._sharpen and path.sharpen(resized, self._sharpen),
            "blend": lambda: path.blend(sharp, targets),
            "download": lambda: [fetched.size for fetched in path.download(patches)()],
        }
        return {name: median_s(steps[name], faces.device, budget_s) * 1e3 for name in IMAGE_STEPS}


def _stream(engine: Engine, avatar: Avatar, seconds: float) -> Report:
    """Speak a synthetic sound through the engine's own run loop, after a warm-up."""
    if engine.bundle.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(engine.bundle.device)
    source = SyntheticSource(
        synthetic_sound(seconds), int(engine.job.chunk * SAMPLE_RATE), engine.stats.clock
    )
    return speak_synthetic(engine, avatar, source, ControlHandle())
