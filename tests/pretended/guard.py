"""Builds and loads the device guard without which no tensor on a GPU can be indexed."""

import ctypes
import fcntl
import functools
import shutil
import subprocess
from pathlib import Path

import torch

SOURCE = Path(__file__).with_name("guard.cpp")


def why_not():
    """Why there can be no pretended GPU here; empty where there can."""
    if torch.version.cuda is not None:
        return f"PyTorch {torch.__version__} has a CUDA of its own, beside which none is pretended"
    return "" if shutil.which("g++") else "no g++ here to build the pretended GPU's device guard"


@functools.cache
def load(folder):
    """Build the guard in a folder, once for all processes that share it, and load it into this one."""
    library = folder / "pretended_guard.so"
    with (folder / "pretended_guard.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            _build(library)
    ctypes.CDLL(str(library))


def _build(library):
    home = Path(torch.__file__).parent
    new = library.with_suffix(".new")
    command = ["g++", "-std=c++20", "-O0", "-w", "-shared", "-fPIC"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-I{home / 'include'}", str(SOURCE), "-o", str(new), f"-L{home / 'lib'}", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"The device guard cannot be built:\n{done.stderr}"
    new.rename(library)
