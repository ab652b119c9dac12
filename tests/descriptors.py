"""A process with so many open files that new ones have numbers `select` cannot wait for."""

import os
import resource
from contextlib import contextmanager

import pytest

FIRST = 1030
"""Above `FD_SETSIZE`, which is 1024."""


@contextmanager
def crowded():
    """Every descriptor below `FIRST` is taken."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = before[1] if before[1] != resource.RLIM_INFINITY else FIRST + 200
    if most < FIRST + 200:
        pytest.skip(f"a process may have {most} open files here, and {FIRST + 200} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], FIRST + 200), before[1]))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < FIRST:
            taken.append(os.dup(taken[0]))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
