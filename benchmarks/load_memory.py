"""How much host memory loading the full-size UNet takes, beyond the weights themselves.

For each file format and each way of loading, a fresh process imports everything, waits, loads and ends,
while this process samples its anonymous resident memory (RssAnon in /proc) every millisecond. Pages of a
mapped file are not counted: the kernel takes them back whenever it needs them. The peak is what was added
since the imports.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
PARAMETERS = 849_947_844


def write(folder: Path, stored: str) -> None:
    """Write the random UNet once in each file format."""
    import torch
    from safetensors.torch import save_file

    from musetalk_cli.nets import modules, random_v15

    pool = random_v15.Pool(torch.device("cpu"), getattr(torch, PRECISIONS[stored]))
    state = pool.fill(lambda: modules.build_unet(random_v15.unet_config(), folder)).state_dict()
    save_file(state, folder / "unet.safetensors")
    torch.save(state, folder / "unet.pth")


def load(path: Path, way: str, precision: str) -> None:
    """Import, say so, wait for a line, load, and say how long that took."""
    import torch
    from safetensors.torch import load_file

    from musetalk_cli.nets import modules, random_v15
    from musetalk_cli.nets.loading import load_weights

    dtype = getattr(torch, PRECISIONS[precision])

    def build() -> nn.Module:
        return modules.build_unet(random_v15.unet_config(), path)

    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    if way == "ours":
        load_weights(build, path, torch.device("cpu"), dtype)
    else:
        net = build()
        safe = path.suffix == ".safetensors"
        net.load_state_dict(
            load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        )
        with modules.quiet():
            net.to(dtype)
    print(time.monotonic() - started, flush=True)


def anonymous_bytes(pid: int) -> int:
    """Anonymous resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(path: Path, way: str, precision: str) -> tuple[int, float]:
    """Peak of added anonymous memory in bytes, and seconds."""
    command = [sys.executable, __file__, "--load", str(path), "--way", way, "--precision", precision]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None  # noqa: S101 - both are pipes
        assert child.stdout is not None  # noqa: S101
        child.stdout.readline()
        before = peak = anonymous_bytes(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        answer: list[str] = []
        reader = threading.Thread(target=lambda out: answer.append(out.readline()), args=(child.stdout,))
        reader.start()
        while reader.is_alive():
            peak = max(peak, anonymous_bytes(child.pid))
            time.sleep(0.001)
    return peak - before, float(answer[0])


def report(stored: str, precision: str) -> None:
    """Measure every combination and print the table."""
    size = PARAMETERS * (4 if precision == "fp32" else 2)
    cpu = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "safetensors"))
    print("# Host memory while the full-size UNet is loaded\n")
    print(f"`python benchmarks/load_memory.py --stored {stored} --precision {precision}`\n")
    print(f"{cpu.split(':')[1].strip()}; Python {platform.python_version()}, {versions}\n")
    print(f"Weights stored as {stored}, loaded as {precision}: {size / 1e9:.2f} GB. The peak is of anonymous")
    print("resident memory (RssAnon, sampled every millisecond from outside) above what the imports took;")
    print("pages of a mapped file are not in it. Naive: construct on the CPU, read the file,")
    print("`load_state_dict`, convert.\n")
    print("| file | way | peak, GB | peak / weights | seconds |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__, "--write", folder, "--stored", stored], check=True)
        for name in ("unet.safetensors", "unet.pth"):
            for way in ("ours", "naive"):
                peak, seconds = measure(Path(folder) / name, way, precision)
                print(
                    f"| {name} | {way} | {peak / 1e9:.2f} | {peak / size:.2f} | {seconds:.1f} |", flush=True
                )


def main() -> None:
    """Measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="format to load into")
    parser.add_argument("--stored", choices=PRECISIONS, default="fp16", help="format in the files")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=("ours", "naive"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write(args.write, args.stored)
    elif args.load:
        load(args.load, args.way, args.precision)
    else:
        report(args.stored, args.precision)


if __name__ == "__main__":
    main()
