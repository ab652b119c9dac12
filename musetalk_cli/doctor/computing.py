"""Python, PyTorch, the GPU with its driver, and Triton: whether what is installed fits together."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from musetalk_cli.doctor.findings import Finding

OLDEST, NEWEST = (3, 10), (3, 13)
"""The versions of Python that are tried."""
_SELECTOR = "https://pytorch.org/get-started/locally/"
Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its driver tells of it.

    Attributes:
        name: Its name.
        driver: Version of the driver.
        capability: Its architecture, like (9, 0); None where the driver does not say.
    """

    name: str
    driver: str
    capability: Version | None = None


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """What PyTorch and the driver say.

    Attributes:
        version: PyTorch's version; None where it cannot be imported.
        error: Why it cannot be imported.
        cuda: The version of CUDA it is built for, or None.
        available: It can use a GPU.
        architectures: Those it has code for, like `sm_90` or `compute_90`.
        devices: The GPUs that it sees, and their architectures.
        trial: What went wrong as each GPU computed something small; None where nothing did.
        gpus: The GPUs of the driver.
        driver_cuda: The newest CUDA that the driver knows, or None where it does not say.
        mps: It can use the GPU of a Mac.
        cards: NVIDIA cards on the bus, with a driver or without.
    """

    version: str | None
    error: str | None = None
    cuda: str | None = None
    available: bool = False
    architectures: tuple[str, ...] = ()
    devices: tuple[tuple[str, Version], ...] = ()
    trial: str | None = None
    gpus: tuple[Gpu, ...] = ()
    driver_cuda: Version | None = None
    mps: bool = False
    cards: int = 0


def check_python(version: tuple[int, ...], bits: int) -> Finding:
    """Whether Python is one that the program is tried with.

    Args:
        version: Its version, like (3, 11, 7).
        bits: Of its addresses.
    """
    name = "Python"
    said = f"{'.'.join(str(part) for part in version[:3])}, {platform.system()} {platform.machine()}"
    tried = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if bits < 64:
        return Finding(name, "problem", f"{said}, of 32 bits.", "Install Python of 64 bits.")
    if version[:2] < OLDEST:
        return Finding(name, "problem", f"{said}: too old.", f"Install Python {tried}.")
    if version[:2] > NEWEST:
        return Finding(name, "warning", f"{said}: newer than what was tried.", f"Use Python {tried}.")
    return Finding(name, "ok", f"{said}.")


def check_torch(facts: TorchFacts) -> Iterator[Finding]:
    """Whether PyTorch can be used, and each GPU with it."""
    if facts.version is None:
        fix = "pip install --force-reinstall torch"
        yield Finding("PyTorch", "problem", f"It cannot be imported: {facts.error}.", fix)
        return
    built = "the CPU" if facts.cuda is None else f"CUDA {facts.cuda}"
    yield Finding("PyTorch", "ok", f"{facts.version}, built for {built}.")
    yield from _check_gpus(facts)


def _check_gpus(facts: TorchFacts) -> Iterator[Finding]:
    names = ", ".join(gpu.name for gpu in facts.gpus)
    if facts.mps:
        yield Finding("GPU", "ok", "PyTorch can use the GPU of this Mac: --device mps, untried so far.")
    elif not facts.gpus and not facts.devices and facts.cards:
        detail = "An NVIDIA card is there, and no driver that nvidia-smi reaches: the CPU computes."
        fix = "Install NVIDIA's driver, and start the machine anew; start a container with --gpus all."
        yield Finding("GPU", "warning", detail, fix)
    elif not facts.gpus and not facts.devices:
        yield Finding("GPU", "ok", "No NVIDIA GPU was found; the CPU computes.")
    elif facts.cuda is None:
        detail = f"{names} is there, and this PyTorch is built for the CPU."
        yield Finding("GPU", "warning", detail, f"Install PyTorch for CUDA: {_SELECTOR}")
    elif not facts.available:
        yield _unavailable(facts, names)
    else:
        for name, capability in facts.devices:
            yield _check_device(name, capability, facts)


def _unavailable(facts: TorchFacts, names: str) -> Finding:
    wanted = version_of(facts.cuda)
    driver = facts.gpus[0].driver
    if facts.driver_cuda is not None and wanted is not None and facts.driver_cuda[0] < wanted[0]:
        known = ".".join(map(str, facts.driver_cuda))
        detail = f"{names}: driver {driver} knows CUDA up to {known}, and this PyTorch needs {facts.cuda}."
        fix = f"Update the driver, or install PyTorch for CUDA {known}: {_SELECTOR}"
        return Finding("GPU", "problem", detail, fix)
    detail = f"{names}: PyTorch cannot use it, with driver {driver}."
    fix = "Check CUDA_VISIBLE_DEVICES, run nvidia-smi, and restart the machine after a driver update."
    return Finding("GPU", "problem", detail, fix)


def _check_device(name: str, capability: Version, facts: TorchFacts) -> Finding:
    own = f"sm_{capability[0]}{capability[1]}"
    if facts.architectures and not runs_on(capability, facts.architectures):
        detail = f"{name} is {own}, and this PyTorch has code for {' '.join(facts.architectures)} alone."
        return Finding("GPU", "problem", detail, f"Install a PyTorch that has code for {own}: {_SELECTOR}")
    if facts.trial is not None:
        fix = "Run nvidia-smi: other programs may hold its memory, or the driver needs a restart."
        return Finding("GPU", "problem", f"{name} ({own}) does not compute: {facts.trial}.", fix)
    driver = f", driver {facts.gpus[0].driver}" if facts.gpus else ""
    return Finding("GPU", "ok", f"{name} ({own}){driver}.")


def runs_on(capability: Version, architectures: Sequence[str]) -> bool:
    """True where code for one of the architectures runs on a GPU.

    Binary code (`sm_86`) runs on GPUs of its major version from its minor version on, or with a letter
    (`sm_90a`) on its own architecture alone. PTX (`compute_80`) is compiled for anything newer (CUDA C++
    Programming Guide, 3.1: binary and PTX compatibility).

    Args:
        capability: The GPU's, like (8, 6).
        architectures: As `torch.cuda.get_arch_list` gives them.
    """
    for architecture in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", architecture)
        if found is None:
            continue
        version = int(found[2]), int(found[3])
        if version == capability:
            return True
        if (
            found[4] == ""
            and version <= capability
            and (found[1] == "compute" or version[0] == capability[0])
        ):
            return True
    return False


def check_triton(cuda: bool, error: str | None, compiler: str | None) -> Finding:
    """Whether the image steps can be one launch on a GPU.

    Args:
        cuda: There is a GPU that PyTorch can use.
        error: Why Triton cannot be imported, or None.
        compiler: The C compiler that Triton builds with, or None.
    """
    if not cuda:
        return Finding("Triton", "ok", "Not needed without a GPU.")
    slower = "the image steps are tensor operations, which is slower"
    if error is not None:
        detail = f"It cannot be imported ({error}): {slower}."
        return Finding("Triton", "warning", detail, "pip install triton")
    if compiler is None:
        fix = "Install gcc, or set CC to a C compiler."
        return Finding("Triton", "warning", f"There is no C compiler for it: {slower}.", fix)
    return Finding("Triton", "ok", f"It can be imported, and builds with {compiler}.")


def version_of(text: str | None) -> Version | None:
    """The first two numbers of a version, or None where it does not begin so."""
    found = re.match(r"(\d+)\.(\d+)", text or "")
    return None if found is None else (int(found[1]), int(found[2]))
