"""How many workers this machine takes, and what each of them may use."""

from __future__ import annotations

import os

from musetalk_cli.config import DeviceName, RunConfig
from musetalk_cli.errors import InputError
from musetalk_cli.run.batch.local import Seat

CORES_EACH = 2
"""Cores that a worker on a CPU has where their number is left open."""
MOST_WORKERS = 256


def find_seats(run: RunConfig, workers: int | None, jobs: int) -> list[Seat]:
    """What each worker may use: one for each GPU, or on a CPU one for every two cores.

    There are no more than jobs. All of them together compute with as many threads as there are cores.

    Args:
        run: What computes.
        workers: How many there shall be; on GPUs they take turns with them. None is what suits.
        jobs: Jobs to be done.

    Raises:
        DeviceError: The device is not there.
        InputError: There cannot be so many workers.
    """
    check_workers(workers)
    gpus = [] if run.device == "cpu" else _gpus(run.device)
    cores = _cores()
    count = workers or len(gpus) or max(1, cores // CORES_EACH)
    count = max(1, min(count, jobs))
    threads = max(1, cores // count)
    return [Seat(gpus[number % len(gpus)] if gpus else None, threads) for number in range(count)]


def check_workers(workers: int | None) -> None:
    """Refuse a number of workers that no machine takes; None is what suits.

    Raises:
        InputError: It is outside 1..256.
    """
    if workers is not None and not 1 <= workers <= MOST_WORKERS:
        raise InputError(f"--workers {workers} is outside 1..{MOST_WORKERS}.", "Leave it out.")


def _gpus(device: DeviceName) -> list[str]:
    """The GPUs of this process, as `CUDA_VISIBLE_DEVICES` calls them; none where the CPU is to compute.

    Raises:
        DeviceError: CUDA is wanted and there is none.
    """
    # takes seconds to load, which a CPU alone can do without
    import torch

    from musetalk_cli.nets.device import resolve_device

    if resolve_device(device).type != "cuda":
        return []
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if len(named) >= count else [str(number) for number in range(count)]


def _cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # a system that does not tell
        return os.cpu_count() or 1
