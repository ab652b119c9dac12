"""The kernels as the compiler takes them: the interpreter also runs what cannot be compiled, or spills."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="no Triton here: pip install 'musetalk-cli[dev]'")

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu" / "cubins.py"
ALL = "75,80,90,100,120"


def compile_all(kernel, arches, folder):
    """What `benchmarks/gpu/cubins.py` tells of all variants of a kernel."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(folder), "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [sys.executable, SCRIPT, "--json", "--kernel", kernel, "--arch", arches]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "arches"),
    [
        ("compose", "90"),
        *(
            pytest.param(kernel, ALL, marks=pytest.mark.slow)
            for kernel in ("compose", "norm_group", "measure", "norm_part", "add", "norm_row", "gate")
        ),
    ],
)
def test_a_kernel_compiles_and_keeps_its_numbers_in_registers(kernel, arches, tmp_path):
    found = compile_all(kernel, arches, tmp_path)
    assert {one["arch"] for one in found} == set(map(int, arches.split(",")))
    for one in found:
        assert one["spilled"] == 0, one
        assert one["registers"] <= 208, one
        assert one["shared"] <= 16 * 1024, one
        assert one["occupancy"] > 0.1, one
        if kernel == "compose":
            # a level is rounded as on the CPU: only the products of the blur and their sums are one
            assert one["fused"] <= (
                0 if one["what"].startswith("no sharpening") else 2 * 32**3 / (32 * one["warps"])
            ), one


@pytest.mark.parametrize("name", ["compose_kernels", "norm_kernels"])
def test_kernels_are_written_as_the_oldest_triton_takes_them(name):
    """That of PyTorch 2.5 is 3.1, which knows no stars, and which is not here to be tried."""
    text = (SCRIPT.parents[2] / "musetalk_cli" / "ops" / f"{name}.py").read_text()
    assert not [node.lineno for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Starred)]
