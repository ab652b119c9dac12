"""Which device computes, in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
from pathlib import Path

import torch

from musetalk_cli.config import DeviceName, PrecisionName
from musetalk_cli.errors import DeviceError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of the two settings in glibc's malloc.h."""
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def resolve_device(name: DeviceName) -> torch.device:
    """The device to compute on; `auto` is CUDA where there is one.

    Raises:
        DeviceError: CUDA is wanted and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        built = torch.version.cuda
        reason = (
            f"PyTorch {torch.__version__} is built without CUDA"
            if built is None
            else "no NVIDIA GPU was found"
        )
        raise DeviceError(
            f"--device cuda cannot be used: {reason}.",
            "Use --device cpu, or install a CUDA build of PyTorch on a machine with a GPU.",
        )
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")


def resolve_dtype(name: PrecisionName, device: torch.device) -> torch.dtype:
    """Number format of the networks; `auto` is fp16 on CUDA and fp32 elsewhere."""
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep large blocks that are freed, and give them out again.

    By default every large tensor is mapped afresh and returned to the system when freed, and the system
    zeroes each page of each activation of each frame again. Kept, a CPU run holds on to its peak memory and
    takes far less time (`benchmarks/allocator.md`).

    Returns:
        True where it was done; False where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def describe_device(device: torch.device) -> str:
    """The device's name for people and reports."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.machine()
