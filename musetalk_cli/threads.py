"""The spin limit of OpenMP's threads: how long they wait for each other before they sleep."""

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
