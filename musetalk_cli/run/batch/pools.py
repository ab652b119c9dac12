"""Which workers do a batch: processes on this machine, or actors of a cluster."""

from __future__ import annotations

import re
from collections.abc import Callable

from musetalk_cli.config import RunConfig
from musetalk_cli.errors import InputError
from musetalk_cli.run.batch.local import LocalPool
from musetalk_cli.run.batch.pool import Pool
from musetalk_cli.run.batch.seats import find_seats

_ADDRESS = re.compile(r"auto|local|([\w.-]{1,255}|\[[0-9a-fA-F:.]{2,45}\]):\d{1,5}", re.ASCII)


def pool_maker(run: RunConfig, workers: int | None, ray: str | None, jobs: int) -> Callable[[], Pool]:
    """What makes the workers of a batch, once it is known that there can be some.

    Args:
        run: What computes.
        workers: How many there shall be; None is what suits.
        ray: A Ray cluster: `auto` for the one that runs here, `local` for one that is begun here and ends
            with this program, or `HOST:PORT`; None is this machine.
        jobs: Jobs to be done.

    Raises:
        DeviceError: The device is not there.
        InputError: There cannot be so many workers, or there is no such cluster.
    """
    if ray is None:
        seats = find_seats(run, workers, jobs)
        return lambda: LocalPool(seats)
    if _ADDRESS.fullmatch(ray) is None:
        raise InputError(f"--ray {ray} is no address of a cluster.", "Write auto, local, or HOST:PORT.")
    from musetalk_cli.run.batch.cluster import RayPool, connect, find_share

    connect(ray)
    share = find_share(run, workers, jobs)
    return lambda: RayPool(share)
