"""Cores and threads: how many there are to use, and how long OpenMP's threads wait before they sleep."""

from __future__ import annotations

import os

SPIN_TURNS = 1000
"""Turns of a waiting thread's loop before it sleeps: tens of microseconds, about what waking it costs."""
_CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def bound_spinning() -> None:
    """Bound the spinning of OpenMP's threads, unless the environment says how they wait.

    At the end of every parallel loop a thread of libgomp, the runtime in torch's wheels, turns 300000 times
    before it sleeps. Where another program has one of the cores, the thread waited for does not run, and the
    others burn the time that it needs. With few turns they sleep instead, and alone they are awake in time.

    libgomp reads its environment when it is loaded, so this comes before torch; afterwards it does nothing.
    """
    if not any(name in os.environ for name in _CHOSEN_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_TURNS)


def usable_cores() -> int:
    """Processor cores this process may use, where the system tells; else all of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
