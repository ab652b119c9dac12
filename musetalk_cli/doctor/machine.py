"""Room on the disks, memory, and cores: what this machine has, and what of it is free."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from musetalk_cli.budget import gibibytes, machine_memory
from musetalk_cli.cgroup import cores, memory_free
from musetalk_cli.doctor.findings import Finding
from musetalk_cli.nets.fetching import SPARE

LITTLE_DISK, NO_DISK = 1 << 30, 100 << 20
LITTLE_MEMORY, NO_MEMORY = 2 << 30, 512 << 20
BUSY = 0.75
"""The share of the machine's cores that others may keep busy."""
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class CoreFacts:
    """Cores, and who uses them.

    Attributes:
        machine: Cores of the machine.
        allowed: Cores that this process may run on.
        quota: Cores' worth of time that its container may take, or None.
        load: Programs that ran or wanted to, the mean of the last minute; None where nobody says.
    """

    machine: int
    allowed: int
    quota: float | None
    load: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written.

    Attributes:
        path: A folder, or the one above it that is there.
        free: Free bytes of its disk.
        writable: A file can be made there, as far as its permissions and its disk say.
    """

    path: Path
    free: int
    writable: bool = True


_ELSEWHERE = {"models": "--models-dir", "avatars": "--avatars-dir"}


def check_disk(places: Mapping[str, Place], to_fetch: int) -> Iterator[Finding]:
    """Whether there is room, and whether it can be written to.

    Args:
        places: What lies where.
        to_fetch: Bytes of v1.5 that are not in the models folder yet.
    """
    for what, place in places.items():
        yield _check_place(what, place, to_fetch)


def _check_place(what: str, place: Place, to_fetch: int) -> Finding:
    name, detail = f"disk, {what}", f"{gibibytes(place.free)} free in {place.path}."
    option = _ELSEWHERE.get(what)
    if not place.writable:
        fix = f"chmod u+w {shlex.quote(str(place.path))}" + (
            f", or {option} with another folder" if option else ""
        )
        return Finding(name, "warning", f"{place.path} cannot be written to; what is there can be used.", fix)
    if place.free < NO_DISK:
        return Finding(name, "problem", detail, "Free some space there.")
    if what == "models" and to_fetch and place.free < to_fetch + SPARE:
        stay = f"and {gibibytes(SPARE)} stay free"
        detail = f"{detail[:-1]}; the rest of v15 takes {gibibytes(to_fetch)}, {stay}."
        fix = "Free some space, or choose another disk with --models-dir."
        return Finding(name, "warning", detail, fix)
    if place.free < LITTLE_DISK:
        return Finding(name, "warning", detail, "Free some space there.")
    return Finding(name, "ok", detail)


def place_of(path: Path) -> Place:
    """What is so where a folder is, or will be.

    Raises:
        OSError: Nobody can say.
    """
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return Place(path, shutil.disk_usage(path).free, os.access(path, os.W_OK | os.X_OK))


def check_memory(total: int, available: int | None) -> Finding:
    """Whether there is memory for the networks.

    Args:
        total: Bytes that this process may have at all: the machine's, or its container's.
        available: Bytes that are free now; None where nobody says.
    """
    if available is None:
        return Finding("memory", "ok", f"{gibibytes(total)}.")
    detail = f"{gibibytes(available)} of {gibibytes(total)} are free."
    if available < NO_MEMORY:
        return Finding("memory", "problem", detail, "Close other programs.")
    if available < LITTLE_MEMORY:
        fix = "Close other programs; v1.5 alone has weights of 3.4 GB in fp32, half in fp16."
        return Finding("memory", "warning", detail, fix)
    return Finding("memory", "ok", detail)


def find_memory() -> tuple[int, int | None]:
    """Bytes this process may have at all, and bytes that are free of them."""
    total, free = machine_memory(), None
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return total, None
    allowed = memory_free()
    return total, min(free, total, free if allowed is None else allowed)


def check_cores(facts: CoreFacts) -> Finding:
    """Whether other programs leave this one its cores."""
    own = min(float(facts.allowed), facts.quota or facts.allowed)
    detail = f"{own:g} of {facts.machine}" if own < facts.machine else f"{facts.machine}"
    detail += " core" if detail == "1" else " cores"
    if facts.load is None:
        return Finding("cores", "ok", f"{detail}.")
    detail += f"; a load of {facts.load:.1f} in the last minute."
    if facts.load > BUSY * facts.machine:
        fix = "Close other programs: what is spoken live may stall beside them."
        return Finding("cores", "warning", detail, fix)
    return Finding("cores", "ok", detail)


def find_cores() -> CoreFacts:
    """Ask the system."""
    machine = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else machine
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return CoreFacts(machine, allowed, cores(), load)
