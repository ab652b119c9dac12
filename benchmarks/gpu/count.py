"""What the networks of v1.5 have to do for a frame: launches, arithmetic and bytes, counted by operator.

    python benchmarks/gpu/count.py [--batches 1,4,9,13,16] [--operators]

Needs g++ and Triton, no GPU and no weights: the product's own code runs on a pretended GPU
(`tests/pretended`) whose tensors have shapes and no numbers. The counts are exact and no measurement of
time. An operator counts as one launch, reads each of its inputs once and writes its outputs once; a real
device may take several kernels for one, and keep in its cache what another reads next. The last column is
a prediction for an H200.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

os.environ["TRITON_INTERPRET"] = "1"  # before Triton loads, as the tests do
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from pretended.cuda import pretended_gpu
from pretended.full_size import full_size, tiny_decoder
from pretended.kernels import Kernel, with_triton

from musetalk_cli.bench.hardware import DATA_SHEETS, TimeModel
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import GpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.engine import BATCHES_ON_CUDA
from musetalk_cli.engine.fused import FusedPath
from musetalk_cli.measure.work import PRODUCTS, Launch, Work
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.generator import Generator
from musetalk_cli.timeline import SAMPLE_RATE

MODEL = TimeModel(DATA_SHEETS["h200"])
CUDA = torch.device("cuda")


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batches", default=",".join(map(str, BATCHES_ON_CUDA)))
    parser.add_argument("--operators", action="store_true", help="by operator too, for the largest batch")
    options = parser.parse_args()
    batches = sorted(map(int, options.batches.split(",")))
    print(f"torch {torch.__version__}, fp16, channels-last; random-v15, the published sizes\n")
    columns = ("stage", "batch", "launches", "GFLOP a frame", "MB a frame", "outside of products")
    print("|", " | ".join((*columns, "*predicted, ms a frame*")), "|")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        largest = networks(Path(folder), batches)
        for name, work in images(Path(folder), batches[-1]).items():
            row(name, batches[-1], work)
    if options.operators:
        for stage, work in largest.items():
            operators(stage, batches[-1], work)


def networks(folder: Path, batches: list[int]) -> dict[str, Work]:
    """Print what the networks do, as they are folded and as they are fused.

    Returns:
        What they do in the largest batch.
    """
    with pretended_gpu(folder, inside=torch.device("meta")) as gpu, with_triton(norms=True):
        bundle = full_size()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("musetalk_cli.nets.generator.fuse", lambda *_: None)
            folded = Generator(bundle)
        fused, encode = Generator(bundle), AudioEncoder(bundle)
        request = EncodeRequest(np.zeros(SAMPLE_RATE, np.float32), range(50))
        row("features, a window", 1, observed(gpu, lambda: encode([request])))
        for batch in batches:
            tokens = torch.empty(batch, 10 * bundle.layers, bundle.token_width, device=CUDA)
            latents = torch.empty(batch, 8, 32, 32, device=CUDA, dtype=bundle.dtype)
            found = {}
            for name, generator in (("", folded), (", fused", fused)):
                found[f"UNet{name}"] = observed(gpu, lambda: generator.unet(tokens, latents))  # noqa: B023
                found[f"VAE{name}"] = observed(gpu, lambda: generator.draw(latents[:, :4]))  # noqa: B023
            for stage, work in found.items():
                row(stage, batch, work)
        tiny = Generator(replace(bundle, decoder=tiny_decoder(bundle.dtype)))
        row("taesd in the VAE's place", batch, observed(gpu, lambda: tiny.draw(latents[:, :4])))
    return found


def images(folder: Path, batch: int) -> dict[str, Work]:
    """What the image steps of a batch do, sharpened, step by step and in one launch."""
    avatar = synthetic_avatar(512, 640, 320, batch)
    found = {}
    with pretended_gpu(folder) as gpu, pytest.MonkeyPatch.context() as patch:
        # counted, and not interpreted: that takes minutes
        compose = Kernel("compose", defaultdict(lambda: lambda *_, **__: None))
        patch.setattr("musetalk_cli.ops.triton_ops.kernels", lambda: SimpleNamespace(compose=compose))
        drawn = Drawn(torch.zeros(batch, 3, 256, 256, dtype=torch.float16, device=CUDA))
        for name, path in (("in steps", GpuPath), ("in one launch", FusedPath)):
            made = path(CUDA, sharpen=Sharpen())
            targets = made.place(avatar)
            found[f"image steps, {name}"] = observed(
                gpu,
                lambda: made.compose(drawn, targets, Sharpen(), lambda _: nullcontext()),  # noqa: B023
            )
    # the kernel finds parts and masks by their addresses
    pixels = sum(patch.mask.size for patch in avatar.patches)
    launches = found["image steps, in one launch"].launches
    (at,) = (number for number, launch in enumerate(launches) if launch.name == "compose")
    launches[at] = Launch("compose", 0, drawn.pictures.nbytes + 7 * pixels, 3 * pixels, 5)
    return found


def observed(gpu: Any, work: Callable[[], object]) -> Work:  # noqa: ANN401 - the pretended one
    """What some work does."""
    gpu.observer = Work()
    work()
    made, gpu.observer = gpu.observer, None
    return made


def row(stage: str, batch: int, work: Work) -> None:
    """Print what one stage of a batch does."""
    outside = sum(launch.bytes for launch in work.launches if launch.name not in PRODUCTS)
    figures = [
        f"{len(work.launches)}",
        f"{work.flops / batch / 1e9:.1f}",
        *(f"{size / batch / 1e6:.0f}" for size in (work.bytes, outside)),
        f"*{predicted(work) / batch * 1e3:.3f}*",
    ]
    print("|", " | ".join((stage, str(batch), *figures)), "|")


def predicted(work: Work) -> float:
    """Seconds by the model of `musetalk bench --predict`; what a group norm copies is counted already."""
    as_counted = [
        replace(launch, name="norm") if launch.name == "native_group_norm" else launch
        for launch in work.launches
    ]
    return MODEL.seconds(Work(as_counted))


def operators(stage: str, batch: int, count: Work) -> None:
    """Print the operators of a stage, those with most bytes first."""
    print(f"\n| {stage}, batch {batch} | launches | GFLOP a frame | MB a frame |\n|---|---|---|---|")
    for name, (launches, flops, moved) in count.by_name().items():
        print(f"| {name} | {launches} | {flops / batch / 1e9:.2f} | {moved / batch / 1e6:.2f} |")


if __name__ == "__main__":
    main()
