"""The processes that this one started and its open descriptors, as the system tells them; Linux only."""

import os
from contextlib import suppress
from pathlib import Path


def children():
    """Process ids of all that this one started and that were not waited for, those that ended among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state_and_parent = stat.read_text().rpartition(")")[2].split()
            if int(state_and_parent[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def open_descriptors():
    """Numbers of the open descriptors; the lowest free one is always among them, as the one that looks."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir()}
