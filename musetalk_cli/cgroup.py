"""What the control groups of this process allow it: memory, and time of cores. A container has its own.

Version 2 of cgroups has one tree of folders, version 1 has one for each resource. A limit holds for all
groups below it, so the least one on the way up counts. Where a container hides the groups around it, the tree
begins with its own, and the path that the kernel tells may not be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
"""Says in which groups this process is: lines like `0::/a/b` (version 2) and `4:memory:/a/b` (version 1)."""


def memory_limit() -> int | None:
    """Bytes of memory that this process may have with all in its groups; None where nothing limits it."""
    return min((limit for limit, _ in _memory()), default=None)


def memory_free() -> int | None:
    """Bytes of that limit that are free or can be freed at once; None where nobody says."""
    return min((max(0, limit - used) for limit, used in _memory() if used is not None), default=None)


def cores() -> float | None:
    """Cores' worth of time that this process may take; None where nothing limits it."""
    found = []
    for folder in _folders("cpu"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if not period:
            quota, period = (_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _memory() -> Iterator[tuple[int, int | None]]:
    """Each limit, and the bytes used of it, without files that are kept only to be read again soon."""
    for folder in _folders("memory"):
        for most, now, kept in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _text(folder / most), _text(folder / now)
            if limit.isdecimal():
                lines = _text(folder / "memory.stat").splitlines()
                freed = next((line.split()[1] for line in lines if line.startswith(f"{kept} ")), "0")
                yield int(limit), int(used) - int(freed) if used.isdecimal() else None


def _folders(resource: str) -> Iterator[Path]:
    """Folders of the groups of this process, its own first, up to the roots of their trees."""
    for line in _text(OWN).splitlines() or ["0::/"]:
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if names and resource not in names.split(","):
            continue
        bases = [ROOT / names, ROOT / resource] if names else [ROOT, ROOT / "unified"]
        inner = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in {"/", ".."}))
        for base in dict.fromkeys(bases):
            yield from (base / step for step in (inner, *inner.parents))


def _text(path: Path) -> str:
    """What a file says; nothing where it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
