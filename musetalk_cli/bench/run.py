"""The benchmark: each stage by batch size, the image paths, the hardware's best, and streams by chunk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.batch import BatchResult
from musetalk_cli.bench.chunks import ChunkResult, measure_chunk
from musetalk_cli.bench.compare import FORMAT, Comparison, compare, read_earlier
from musetalk_cli.bench.measure import Roofline, measure_roofline
from musetalk_cli.bench.options import BenchOptions
from musetalk_cli.bench.predict import Prediction, predict
from musetalk_cli.bench.profiling import Profile, check_folder, record
from musetalk_cli.bench.published import PublishedFrames
from musetalk_cli.bench.stages import Stages
from musetalk_cli.bench.stream import open_synthetic
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.nets.device import describe_device, measured_convolutions
from musetalk_cli.run.job import make_engine, settings
from musetalk_cli.run.report import versions

Notice = Callable[[str], None]
"""Told what is measured next."""


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Everything that was measured, and apart from it what was predicted.

    Attributes:
        roofline: What the hardware did at best.
        gflop: By network, in 10^9 operations: `features` for one window, `unet` and `vae` for one frame.
        features_ms: One encoder window, of which a second is needed.
        batches: One entry per batch size.
        chunks: One entry per length of chunk.
        random_weights: True where the weights are random numbers.
        conditions: Hardware, model and settings, by name: what has to be the same to compare two runs.
        settings: What the run was asked for, and what was chosen.
        prediction: What a GPU that is not here would take, or None.
        profile: What was recorded, or None.
        comparison: Beside an earlier run, or None.
    """

    roofline: Roofline
    gflop: dict[str, float]
    features_ms: float
    batches: list[BatchResult]
    chunks: list[ChunkResult]
    random_weights: bool
    conditions: dict[str, str]
    settings: dict[str, str | float | bool | None]
    prediction: Prediction | None = None
    profile: Profile | None = None
    comparison: Comparison | None = None

    @property
    def gflop_per_frame(self) -> float:
        """UNet and VAE decoder for one frame, in 10^9 operations."""
        return self.gflop["unet"] + self.gflop["vae"]

    def figures(self) -> dict[str, float]:
        """What `--compare` compares: medians, by a name that ends with the unit."""
        found = {"features, ms": self.features_ms}
        for batch in self.batches:
            at = f"batch of {batch.size}"
            image_ms = min(sum(steps.values()) for steps in batch.image_ms.values())
            found |= {f"UNet, {at}, ms": batch.unet_ms, f"VAE, {at}, ms": batch.vae_ms}
            if batch.graph_ms is not None:
                found[f"UNet and VAE as graphs, {at}, ms"] = batch.graph_ms
            found |= {f"image steps, {at}, ms": image_ms, f"{at}, frames/s": batch.frames_per_s}
        for chunk in self.chunks:
            report, at = chunk.report, f"chunk of {chunk.report.chunk_s:g} s"
            found[f"first frame, {at}, ms"] = report.first_frame_ms.p50
            found[f"last frame, {at}, ms"] = report.last_frame_ms.p50
            found[f"stream, {at}, frames/s"] = report.throughput_fps
        return found

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values; what was predicted stands under `predicted` and nowhere else."""
        parts = {"predicted": self.prediction, "profile": self.profile, "comparison": self.comparison}
        return {
            "format": FORMAT,
            "conditions": self.conditions,
            "settings": self.settings,
            "versions": versions(),
            "random_weights": self.random_weights,
            "roofline": dataclasses.asdict(self.roofline),
            "gflop": self.gflop,
            "gflop_per_frame": self.gflop_per_frame,
            "features_ms": self.features_ms,
            "batches": [batch.as_json() for batch in self.batches],
            "chunks": [chunk.as_json() for chunk in self.chunks],
            "figures": self.figures(),
            **{name: part.as_json() for name, part in parts.items() if part is not None},
        }


@torch.inference_mode()
def bench(run: RunConfig, job: JobConfig, options: BenchOptions, notice: Notice) -> BenchResult:
    """Measure every stage and the whole.

    Args:
        run: Which networks, on which device; without a model the published one that is there, else the demo.
        job: Frame rate, batch sizes and sharpening; a batch of 1 is measured besides.
        options: Sizes of the synthetic input, lengths of chunk, how long to measure, and what else to do.
        notice: Told what comes next.

    Raises:
        MuseTalkError: The device is not there, the model cannot be loaded, the sizes do not fit, a folder or
            an earlier run cannot be used, or that one cannot be compared with this.
    """
    earlier = None if options.compare is None else read_earlier(options.compare)
    if options.profile is not None:
        check_folder(options.profile)
    bundle, avatar = open_synthetic(run, options.sizes, notice)
    chunks = sorted(options.chunks or default_chunks(bundle.device))
    job = dataclasses.replace(job, chunk=chunks[-1])
    engine = make_engine(bundle, job, MonotonicClock(), live=False)
    conditions = _conditions(engine, options)
    if earlier is not None:
        earlier.check(conditions)
    # as in a warm-up: what was computed unmeasured before one would stay so, in its streams too
    with measured_convolutions():
        result = _measure(engine, avatar, chunks, options, conditions, notice)
    if options.predict is not None:
        notice(f"counting what a GPU of type {options.predict} would have to do")
        prediction = predict(options.predict, bundle, avatar, job, engine.window_rows)
        result = dataclasses.replace(result, prediction=prediction)
    if earlier is not None:
        comparison = compare(earlier, result.figures(), options.tolerance)
        result = dataclasses.replace(result, comparison=comparison)
    return result


def default_chunks(device: torch.device) -> tuple[Fraction, ...]:
    """Lengths of chunk that are measured where none is named; on a CPU one takes minutes already."""
    longest = Fraction(1, 2)
    return (longest,) if device.type == "cpu" else (Fraction(1, 10), Fraction(1, 5), longest)


def _measure(
    engine: Engine,
    avatar: Avatar,
    chunks: Sequence[Fraction],
    options: BenchOptions,
    conditions: dict[str, str],
    notice: Notice,
) -> BenchResult:
    device, bundle = engine.bundle.device, engine.bundle
    notice("measuring the hardware")
    roofline = measure_roofline(device, bundle.dtype, options.budget_s)
    published = PublishedFrames(avatar) if options.baseline else None
    stages = Stages(engine, avatar, roofline, options.budget_s, published)
    notice("measuring the features")
    features_ms = stages.features_s * 1e3
    batches = []
    for size in sorted({1, *engine.batch_sizes}):
        notice(f"measuring batches of {size}")
        batches.append(stages.measure(size))
    profile = None if options.profile is None else _profile(stages, engine, options.profile, notice)
    seconds = options.seconds or (10.0 if device.type == "cuda" else 1.0)
    results = []
    for chunk in chunks:
        notice(f"speaking {seconds:g} s in chunks of {float(chunk):g} s")
        shorter = make_engine(
            bundle, dataclasses.replace(engine.job, chunk=chunk), engine.stats.clock, live=False
        )
        try:
            results.append(measure_chunk(shorter, avatar, seconds, stages, published, options.budget_s))
        finally:
            shorter.end()  # the graphs of the next find the memory free
    gflop = {name: flops / 1e9 for name, flops in stages.flops.items()}
    told = settings(engine, engine.job, avatar.meta.name)
    return BenchResult(
        roofline,
        gflop,
        features_ms,
        batches,
        results,
        bundle.random,
        conditions,
        told,
        profile=profile,
    )


def _profile(stages: Stages, engine: Engine, folder: Path, notice: Notice) -> Profile:
    size = engine.batch_sizes[-1]
    notice(f"recording batches of {size}")
    return record(partial(stages.whole, size), size, engine.bundle.device, folder)


def _conditions(engine: Engine, options: BenchOptions) -> dict[str, str]:
    """What has to be the same for two runs to say something about each other."""
    bundle, job = engine.bundle, engine.job
    return {
        "device": describe_device(bundle.device),
        "model": bundle.name,
        "face decoder": "own" if bundle.decoder is None else "taesd",
        "precision": str(bundle.dtype).removeprefix("torch."),
        "frame size": f"{options.sizes.width}x{options.sizes.height}",
        "face size": str(options.sizes.face),
        "number of avatar frames": str(options.sizes.frames),
        "sharpening": "off" if job.sharpen is None else str(job.sharpen),
        "frame rate": str(job.fps),
        "encoder window": f"{engine.window_rows} rows",
    }
