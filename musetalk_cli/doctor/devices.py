"""What PyTorch and the driver say of this machine's GPUs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from musetalk_cli.doctor.computing import Gpu, TorchFacts, Version, version_of
from musetalk_cli.errors import describe

_SMI_S = 10.0
_BUS = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
"""The vendor, and how the class of a device begins that draws or computes (PCI Code and ID Assignment)."""


def find_torch() -> TorchFacts:
    """Ask PyTorch and the driver; each GPU multiplies two small matrices."""
    gpus, driver_cuda = find_gpus()
    try:
        import torch
    except Exception as error:  # a broken installation raises whatever its parts raise
        return TorchFacts(None, describe(error).rstrip("."), gpus=gpus, driver_cuda=driver_cuda)
    available = torch.cuda.is_available()
    count = torch.cuda.device_count() if available else 0
    return TorchFacts(
        torch.__version__,
        None,
        torch.version.cuda,
        available,
        tuple(torch.cuda.get_arch_list()) if available else (),
        tuple((torch.cuda.get_device_name(at), torch.cuda.get_device_capability(at)) for at in range(count)),
        _trial(count),
        gpus,
        driver_cuda,
        torch.backends.mps.is_available(),
        count_cards(),
    )


def count_cards(bus: Path = _BUS) -> int:
    """NVIDIA cards that Linux sees on the PCI bus, whether or not a driver is there."""
    found = 0
    for device in bus.glob("*"):
        with suppress(OSError):
            kind, vendor = ((device / name).read_text().strip() for name in ("class", "vendor"))
            found += vendor == _NVIDIA and kind.startswith(_DISPLAY)
    return found


def _trial(count: int) -> str | None:
    """What goes wrong as each of so many GPUs computes, or None."""
    import torch

    try:
        for at in range(count):
            ones = torch.ones(2, 2, device=f"cuda:{at}")
            ones.mm(ones).cpu()
    except Exception as error:  # whatever the driver raises
        return describe(error).rstrip(".")
    return None


def find_gpus() -> tuple[tuple[Gpu, ...], Version | None]:
    """The GPUs of the driver and the newest CUDA it knows, told by nvidia-smi; none where it is not there."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return (), None
    fields = "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"
    listed, overview = _said([command, *fields]), _said([command])
    return read_smi(listed), version_of(found[1] if (found := _CUDA.search(overview)) else None)


_CUDA = re.compile(r"CUDA (?:UMD )?Version: *(\d+\.\d+)")


def _said(command: list[str]) -> str:
    """What a program writes; nothing where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def read_smi(text: str) -> tuple[Gpu, ...]:
    """GPUs from lines like `NVIDIA H100, 580.65, 9.0`."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") >= 2]
    return tuple(Gpu(", ".join(row[:-2]), row[-2], version_of(row[-1])) for row in rows)


def find_triton() -> tuple[str | None, str | None]:
    """Why Triton cannot be imported, or None; and the C compiler it would build with, or None."""
    try:
        import triton  # noqa: F401 - whether it can be imported is the question
    except Exception as error:  # a broken installation raises whatever its parts raise
        failed: str | None = describe(error).rstrip(".")
    else:
        failed = None
    names = (os.environ.get("CC") or "", "gcc", "clang", "cc")
    return failed, next((name for name in names if name and shutil.which(name)), None)
