"""What the compiler makes of the product's kernels: registers, spills, shared memory, occupancy. No GPU.

    python benchmarks/gpu/cubins.py [--arch 80,90,100,120] [--kernel compose] [--json]

Needs Triton, whose wheel has NVIDIA's assembler in it. Each kernel is compiled as the product launches it for
the networks of v1.5 in fp16. Nothing here is a time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)  # what the interpreter runs cannot be compiled

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from musetalk_cli.ops import compose_kernels, norm_kernels, norms, triton_ops
from musetalk_cli.types import FACE_SIZE

ARCHES = (80, 90, 100, 120)
"""A100, H100 and H200, B200, RTX 50."""
SHARED = {75: 64, 80: 164, 90: 228, 100: 228, 120: 100}
"""KiB of shared memory of a multiprocessor."""
WARPS = {75: 32, 80: 64, 90: 64, 100: 64, 120: 48}
"""Warps that a multiprocessor holds at the most."""


@dataclass(frozen=True)
class Variant:
    """A kernel as it is launched.

    Attributes:
        kernel: Its name.
        what: For what it is launched.
        function: The kernel.
        types: Triton's types of its arguments, in order.
        constants: What the compiler knows.
        options: How it is compiled.
    """

    kernel: str
    what: str
    function: Any
    types: str
    constants: dict[str, int | bool]
    options: dict[str, int | bool]


@dataclass(frozen=True)
class Facts:
    """What the compiler tells of a kernel.

    Attributes:
        kernel: Its name.
        what: For what it is launched.
        arch: For which GPU.
        warps: Of a program.
        registers: Of a thread.
        spilled: Bytes of a thread that have no register.
        shared: Bytes of shared memory of a program.
        occupancy: Warps that fit beside each other, of those that a multiprocessor holds at the most.
        instructions: In the code, each once.
        fused: Products and sums in one instruction, which round once where two round twice.
    """

    kernel: str
    what: str
    arch: int
    warps: int
    registers: int
    spilled: int
    shared: int
    occupancy: float
    instructions: int
    fused: int


def variants() -> Iterator[Variant]:
    """All that the product launches for v1.5."""
    yield from _image_steps()
    yield from _group_norms()
    yield from _transformers()


def _image_steps() -> Iterator[Variant]:
    fields = {
        "SIDE": FACE_SIZE,
        "FIELDS": triton_ops.FIELDS,
        "TILE": triton_ops.TILE,
        "CHECKED": triton_ops.CHECKED,
    }
    options = {"num_warps": triton_ops.WARPS, "num_stages": 1, "enable_fp_fusion": False}
    blurs = (("no sharpening", 1), ("sigma 1", 9), ("sigma 3", triton_ops.MOST_TAPS))
    # as a half format's decoder leaves faces, and as one in fp32 may
    for (what, taps), (kind, planes) in product(blurs, (("fp16", False), ("fp32", True))):
        yield Variant(
            "compose",
            f"{what}, {kind} in {'planes' if planes else 'pixels'}",
            compose_kernels.compose,
            f"*i64 *{kind} *fp32 fp32 fp32",
            fields | {"TAPS": taps, "PLANES": planes},
            options,
        )


def _group_norms() -> Iterator[Variant]:
    """With what comes before and behind them in residual blocks, and the blocks' sums."""
    chosen = {"ADDED": True, "SILU": True}
    for width in (4, 10, 16, 20, 30, 40, 60, 80):
        yield Variant(
            "norm_group",
            f"{32 * width} channels",
            norm_kernels.norm_group,
            "*fp16 *fp16 *fp16 *fp16 *fp16 i32 i32 fp32",
            norms.tile(width) | chosen,
            {"num_warps": norms.WARPS},
        )
    for channels in (512, 256, 128):
        cut = {"C": channels, "G": 32, "PLACES": norms.AT_ONCE // channels}
        options = {"num_warps": norms.WARPS}
        yield Variant(
            "measure",
            f"{channels} channels",
            norm_kernels.measure,
            "*fp16 *fp16 *fp32 i32",
            cut | {"ADDED": True},
            options,
        )
        yield Variant(
            "norm_part",
            f"{channels} channels",
            norm_kernels.norm_part,
            "*fp16 *fp16 *fp16 *fp16 *fp32 *fp16 i32 fp32",
            cut | {"PARTS": norms.PARTS} | chosen,
            options,
        )
    for channels in (128, 640):
        fields = {"C": channels, "BLOCK": norms.BLOCK}
        yield Variant(
            "add",
            f"{channels} channels",
            norm_kernels.add,
            "*fp16 *fp16 *fp32 *fp16 i32",
            fields,
            {"num_warps": 4},
        )


def _transformers() -> Iterator[Variant]:
    for channels in (320, 640, 1280):
        yield Variant(
            "norm_row",
            f"{channels} channels",
            norm_kernels.norm_row,
            "*fp16 *fp16 *fp16 *fp16 *fp16 *fp16 i32 fp32",
            {"COLS": norms.power(channels), "MORE": True},
            {"num_warps": 4},
        )
    for width in (1280, 5120):
        yield Variant(
            "gate",
            f"{width} channels",
            norm_kernels.gate,
            "*fp16 *fp16 i32",
            {"WIDTH": width, "BLOCK": norms.BLOCK},
            {"num_warps": 4},
        )


def facts(variant: Variant, arch: int) -> Facts:
    """Compile a kernel for one kind of GPU."""
    names = variant.function.arg_names
    types = dict(zip(names, variant.types.split(), strict=False))
    signature = {name: types.get(name, "constexpr") for name in names}
    # as PyTorch allocates, and as all sizes are
    aligned = {
        (at,): [["tt.divisibility", 16]]
        for at, kind in enumerate(types.values())
        if kind[0] == "*" or kind == "i32"
    }
    source = ASTSource(fn=variant.function, signature=signature, constexprs=variant.constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=variant.options)
    usage, code = disassemble(made.asm["cubin"])
    used = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    names = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", code)
    warps, shared = made.metadata.num_warps, made.metadata.shared
    return Facts(
        variant.kernel,
        variant.what,
        arch,
        warps,
        used["REG"],
        used["STACK"] + used["LOCAL"],
        shared,
        occupancy(used["REG"], warps, shared, arch),
        len(names),
        sum(name.startswith("FFMA") for name in names),
    )


def disassemble(cubin: bytes) -> tuple[str, str]:
    """What the tools in Triton's wheel tell of a cubin: its resources, and its code."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run([tools / tool, *options, file.name], capture_output=True, text=True, check=True)
            for tool, options in (("cuobjdump", ["--dump-resource-usage"]), ("nvdisasm", []))
        )
    return usage.stdout, code.stdout


def occupancy(registers: int, warps: int, shared: int, arch: int) -> float:
    """Share of the warps that fit beside each other: 65536 registers, given out to warps by 256."""
    each = -(-registers * 32 // 256) * 256
    # a program takes 1 KiB of shared memory besides
    programs = min(65536 // (each * warps), WARPS[arch] // warps, SHARED[arch] * 1024 // (shared + 1024))
    return programs * warps / WARPS[arch]


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", default=",".join(map(str, ARCHES)))
    parser.add_argument("--kernel", help="this one alone")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    wanted = [variant for variant in variants() if options.kernel in {None, variant.kernel}]
    found = [facts(variant, arch) for variant in wanted for arch in map(int, options.arch.split(","))]
    if options.json:
        print(json.dumps([asdict(one) for one in found]))
        return
    print(f"triton {triton.__version__}; registers, spilled bytes and occupancy for sm_{options.arch}\n")
    print("| kernel | for | warps | shared, B | registers | spilled | occupancy | instructions |")
    print("|---|---|---|---|---|---|---|---|")
    for variant in wanted:
        made = [one for one in found if (one.kernel, one.what) == (variant.kernel, variant.what)]
        each = [
            [one.registers for one in made],
            [one.spilled for one in made],
            [f"{one.occupancy:.0%}" for one in made],
            [one.instructions for one in made],
        ]
        figures = [" / ".join(map(str, values)) for values in each]
        print(
            "|",
            " | ".join((variant.kernel, variant.what, str(made[0].warps), str(made[0].shared), *figures)),
            "|",
        )


if __name__ == "__main__":
    main()
