"""What keeping freed memory saves on a CPU: UNet, VAE and a whole batch, with and without.

    python benchmarks/allocator.py --model PATH [--batch 12] [--rounds 5]

Each measurement is a process of its own, the two in turn: a machine whose speed drifts does so for both.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from musetalk_cli import __version__


def main() -> None:
    """Print seconds with and without, and their ratio, as medians over rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="bundle folder")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=("kept", "returned"))
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args.model, args.batch, keep=args.child == "kept")))
        return
    results: dict[str, list[dict[str, float]]] = {"returned": [], "kept": []}
    for _ in range(args.rounds):
        for way, found in results.items():
            command = [sys.executable, __file__, "--model", args.model, "--batch", str(args.batch)]
            child = subprocess.run([*command, "--child", way], check=True, capture_output=True, text=True)
            found.append(json.loads(child.stdout))
    import torch

    print(f"{args.batch} frames a batch, medians of {args.rounds} pairs; {platform.machine()},")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, musetalk {__version__}\n")
    print("| figure | returned | kept | returned / kept |\n|---|---|---|---|")
    for name in results["kept"][0]:
        one, other = (statistics.median(run[name] for run in results[way]) for way in ("returned", "kept"))
        ratio = statistics.median(a[name] / b[name] for a, b in zip(*results.values(), strict=True))
        print(f"| {name} | {one:.1f} | {other:.1f} | {ratio:.2f} |")


def measure(model: str, batch: int, *, keep: bool) -> dict[str, float]:
    """Median milliseconds a frame over ten batches, and the peak memory in MiB."""
    import torch

    from musetalk_cli.nets.bundle import load_bundle
    from musetalk_cli.nets.device import keep_freed_memory
    from musetalk_cli.nets.generator import Generator
    from musetalk_cli.timeline import ROWS_PER_FRAME

    if keep and not keep_freed_memory():
        raise SystemExit("The C library is not glibc.")
    bundle = load_bundle(model, Path("models"), torch.device("cpu"), torch.float32)
    generator = Generator(bundle)
    tokens = torch.zeros(batch, ROWS_PER_FRAME * bundle.layers, bundle.token_width)
    latents = torch.randn(batch, 8, 32, 32)
    unet, vae = [], []
    for _ in range(12):
        start = time.perf_counter()
        predicted = generator.unet(tokens, latents)
        middle = time.perf_counter()
        generator.decode(predicted)
        unet.append(middle - start)
        vae.append(time.perf_counter() - middle)
    return {
        "UNet, ms a frame": statistics.median(unet[2:]) / batch * 1e3,
        "VAE, ms a frame": statistics.median(vae[2:]) / batch * 1e3,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
