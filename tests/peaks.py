"""The most memory that something in this process took, as the system counts it."""

from contextlib import contextmanager
from pathlib import Path

import pytest

RESET = Path("/proc/self/clear_refs")
SLACK = 64 << 20
"""What libraries keep for themselves."""


def resident(key):
    """A size of this process in bytes."""
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) << 10


@contextmanager
def bounded(budget):
    """What is done inside takes no more memory than this; skips where the system does not tell."""
    if not RESET.exists():
        pytest.skip("this system does not count the peak of a process")
    RESET.write_text("5")
    before = resident("VmRSS")
    yield
    assert resident("VmHWM") - before < budget + SLACK
