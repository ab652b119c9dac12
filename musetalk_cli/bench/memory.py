"""What a process takes of the memory, now and at most."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path

from musetalk_cli.run.report import peak_host_bytes

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_CLEAR_PEAK = "5"


def resident_bytes() -> int:
    """Resident size of this process; the largest so far where the system is not Linux."""
    return _field("VmRSS") or peak_host_bytes()


def peak_bytes() -> int:
    """Largest resident size of this process since it began, or since `forget_peak`.

    The largest size that `getrusage` tells begins, on Linux, with that of the process that started this one.
    """
    return _field("VmHWM") or peak_host_bytes()


def forget_peak() -> None:
    """Give free memory back and begin the peak anew, where the system allows it.

    What one thread has freed is not always given to another one: kept, it would count twice.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_CLEAR_PEAK)


def _field(name: str) -> int | None:
    """A size in Linux's description of this process, in bytes; None where there is none."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
