"""The memory that one thing which is read may take, and how running out of memory is told.

Sizes are added up from headers and compared with the budget before anything is read, so that a small file
which stands for a huge one costs nothing.
"""

from __future__ import annotations

import errno
import os
import re

from musetalk_cli.cgroup import memory_limit
from musetalk_cli.errors import InputError, MuseTalkError

VARIABLE = "MUSETALK_MEMORY"
"""The environment variable that sets the budget, like `24G` or `800M`."""
DEFAULT_SHARE = 0.5
DEFAULT_MOST = 16 << 30
"""Without it: this share of the machine's memory, and at most so many bytes."""

_SIZE = re.compile(r"(\d{1,6})\s*([MGT])(i?B)?", re.IGNORECASE)
_UNITS = {"M": 20, "G": 30, "T": 40}
_TORCH = ("defaultcpuallocator", "not enough memory", "out of memory", "cannot allocate memory")
_OPENCV_NO_MEMORY = -4


def memory_budget() -> int:
    """The budget in bytes: what `MUSETALK_MEMORY` says, else half of the machine's memory, at most 16 GiB.

    Raises:
        InputError: The variable is no size.
    """
    text = os.environ.get(VARIABLE)
    return parse_size(text, VARIABLE) if text else min(int(machine_memory() * DEFAULT_SHARE), DEFAULT_MOST)


def parse_size(text: str, variable: str) -> int:
    """Bytes from a text like `24G` or `800M`, which an environment variable says.

    Raises:
        InputError: It is no size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise InputError(f"{variable}={text} is no size.", "Write it like 24G or 800M.")
    return int(found[1]) << _UNITS[found[2].upper()]


def check_budget(needed: int, what: str, kind: type[MuseTalkError]) -> None:
    """Refuse what would take more memory than the budget.

    Args:
        needed: Bytes it takes, added up from headers.
        what: What it is, at the start of a sentence.
        kind: The error that is raised.
    """
    if needed > (budget := memory_budget()):
        raise kind(
            f"{what} would take {gibibytes(needed)} of memory, more than the {gibibytes(budget)} it may.",
            f"Set {VARIABLE}, like {VARIABLE}={(needed >> 30) + 1}G, if it is meant and the machine has it.",
        )


def gibibytes(count: int) -> str:
    """A size for people."""
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"


def is_out_of_memory(error: BaseException) -> bool:
    """True where an error means that there is not enough memory, in whatever words its library says so."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if getattr(error, "code", None) == _OPENCV_NO_MEMORY:  # cv2.error
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _TORCH)


def out_of_memory() -> MuseTalkError:
    """What is said where the memory did not suffice."""
    return MuseTalkError(
        "There is not enough memory for this.",
        "Use a smaller input or batch, close other programs, or take a machine with more memory.",
    )


def machine_memory() -> int:
    """Bytes of memory that this process can have at all: those of the machine, or of its container."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = memory_limit()
    return found if limit is None else min(found, limit)
