"""What a frame costs on a CPU with the networks as the library has them, and as they are run here.

    python benchmarks/folding.py [--model demo] [--models models] [--batch 4] [--rounds 30]

Here the UNet computes no timestep, no network divides by 1, and a transformer's picture keeps its memory
format (`musetalk_cli/nets/folding.py`). The two ways take turns, so that whatever else the machine does meets
both. Times are of one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from turns import medians

from musetalk_cli.nets.bundle import load_bundle
from musetalk_cli.nets.device import describe_device, keep_freed_memory, resolve_dtype
from musetalk_cli.nets.files import NO_CARD, RANDOM, resolve
from musetalk_cli.nets.folding import fold

CPU = torch.device("cpu")


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    card = NO_CARD if options.model == RANDOM else resolve(options.model, options.models).card
    print(f"{describe_device(CPU)}; {options.model}, batches of {options.batch}\n")
    print("| | the library's, ms a frame | here, ms a frame | ratio |\n|---|---|---|---|")
    for dtype in dict.fromkeys((torch.float32, resolve_dtype("auto", CPU, card.cpu_precision))):
        bundle = load_bundle(options.model, options.models, CPU, dtype)
        layout = torch.channels_last if dtype == torch.bfloat16 else torch.contiguous_format
        numbers = torch.Generator().manual_seed(0)
        latents = torch.randn(options.batch, 8, 32, 32, generator=numbers).to(dtype, memory_format=layout)
        width = 10 * bundle.layers, bundle.token_width
        tokens = torch.randn(options.batch, *width, generator=numbers).to(dtype)
        step = torch.zeros((), dtype=torch.int64)
        pairs = {
            "UNet": [
                lambda unet=unet: unet(latents, step, encoder_hidden_states=tokens)  # noqa: B023 - called at once
                for unet in (bundle.unet, fold(bundle.unet))
            ],
            "VAE": [
                lambda vae=vae: vae.decode(latents[:, :4])  # noqa: B023
                for vae in (bundle.vae, fold(bundle.vae))
            ],
        }
        for name, ways in pairs.items():
            taken = medians(ways, options.rounds, time.thread_time)
            before, after = (seconds * 1e3 / options.batch for seconds in taken)
            kind = str(dtype).removeprefix("torch.")
            print(f"| {name}, {kind} | {before:.2f} | {after:.2f} | {after / before:.3f} |")


if __name__ == "__main__":
    main()
