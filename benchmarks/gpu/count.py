"""What the networks of v1.5 have to do for a frame: launches, arithmetic and bytes, counted by operator.

    python benchmarks/gpu/count.py [--batches 1,4,8,13,16] [--operators]

Needs g++, no GPU and no weights: the product's own code runs on a pretended GPU (`tests/pretended`)
whose tensors have shapes and no numbers. The counts are exact and no measurement of time. An operator counts
as one launch, reads each of its inputs once and writes its outputs once; a real device may take several
kernels for one, and keep in its cache what another reads next.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from pretended.cuda import pretended_gpu
from pretended.full_size import full_size, tiny_decoder

from musetalk_cli.measure.work import PRODUCTS, Work
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.generator import Generator
from musetalk_cli.timeline import SAMPLE_RATE


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batches", default="1,4,8,13,16")
    parser.add_argument("--operators", action="store_true", help="by operator too, for the largest batch")
    options = parser.parse_args()
    batches = sorted(map(int, options.batches.split(",")))
    print(f"torch {torch.__version__}, fp16, channels-last; random-v15, the published sizes\n")
    print("| stage | batch | launches | GFLOP a frame | MB a frame | of them outside of products |")
    print("|---|---|---|---|---|---|")
    meta = torch.device("meta")
    with tempfile.TemporaryDirectory() as folder, pretended_gpu(Path(folder), inside=meta) as gpu:
        bundle = full_size()
        generator, encode = Generator(bundle), AudioEncoder(bundle)

        def run(work: Callable[[], object]) -> Work:
            gpu.observer = Work()
            work()
            return gpu.observer

        request = EncodeRequest(np.zeros(SAMPLE_RATE, np.float32), range(50))
        row("features, a window", 1, run(lambda: encode([request])))
        for batch in batches:
            tokens = torch.empty(batch, 10 * bundle.layers, bundle.token_width, device="cuda")
            latents = torch.empty(batch, 8, 32, 32, device="cuda", dtype=bundle.dtype)
            unet = run(lambda: generator.unet(tokens, latents))  # noqa: B023 - called at once
            vae = run(lambda: generator.faces(latents[:, :4]))  # noqa: B023
            row("UNet", batch, unet)
            row("VAE", batch, vae)
        tiny = Generator(replace(bundle, decoder=tiny_decoder(bundle.dtype)))
        row("taesd in its place", batch, run(lambda: tiny.faces(latents[:, :4])))
    if options.operators:
        for stage, count in (("UNet", unet), ("VAE", vae)):
            operators(stage, batches[-1], count)


def row(stage: str, batch: int, count: Work) -> None:
    """Print what one stage of a batch does."""
    outside = sum(launch.bytes for launch in count.launches if launch.name not in PRODUCTS)
    figures = [
        f"{len(count.launches)}",
        f"{count.flops / batch / 1e9:.1f}",
        *(f"{size / batch / 1e6:.0f}" for size in (count.bytes, outside)),
    ]
    print("|", " | ".join((stage, str(batch), *figures)), "|")


def operators(stage: str, batch: int, count: Work) -> None:
    """Print the operators of a stage, those with most bytes first."""
    print(f"\n| {stage}, batch {batch} | launches | GFLOP a frame | MB a frame |\n|---|---|---|---|")
    for name, (launches, flops, moved) in count.by_name().items():
        print(f"| {name} | {launches} | {flops / batch / 1e9:.2f} | {moved / batch / 1e6:.2f} |")


if __name__ == "__main__":
    main()
