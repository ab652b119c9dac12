"""How many workers a machine takes, and what each of them may use."""

import os
import sys

import pytest
import torch

from musetalk_cli.config import RunConfig
from musetalk_cli.errors import DeviceError, InputError
from musetalk_cli.run.batch.local import LocalPool, Seat
from musetalk_cli.run.batch.seats import find_seats
from musetalk_cli.text import counted


@pytest.fixture
def machine(monkeypatch):
    """Lets the machine have so many cores and GPUs."""

    def has(cores, gpus=0, visible=None):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return has


@pytest.mark.parametrize(
    ("cores", "workers", "jobs", "expected"),
    [
        (1, None, 9, [1]),
        (2, None, 9, [2]),
        (16, None, 99, [2] * 8),
        (16, None, 3, [5] * 3),
        (4, 8, 99, [1] * 8),
        (16, 4, 99, [4] * 4),
        (16, None, 0, [16]),
    ],
)
def test_a_cpu_is_shared_without_more_threads_than_cores(machine, cores, workers, jobs, expected):
    machine(cores)
    seats = find_seats(RunConfig(device="cpu"), workers, jobs)
    assert seats == [Seat(None, threads) for threads in expected]
    assert sum(expected) <= max(cores, len(seats))
    assert find_seats(RunConfig(device="auto"), workers, jobs) == seats


@pytest.mark.parametrize(
    ("visible", "workers", "jobs", "expected"),
    [
        (None, None, 9, ["0", "1"]),
        (None, None, 1, ["0"]),
        (None, 3, 9, ["0", "1", "0"]),
        ("4,6", None, 9, ["4", "6"]),
        ("GPU-a1, GPU-b2", None, 9, ["GPU-a1", "GPU-b2"]),
    ],
)
def test_each_gpu_has_a_worker_that_sees_no_other(machine, visible, workers, jobs, expected):
    machine(8, 2, visible)
    seats = find_seats(RunConfig(), workers, jobs)
    assert [seat.gpu for seat in seats] == expected
    assert find_seats(RunConfig(device="cpu"), 1, jobs)[0].gpu is None
    assert LocalPool(seats).device == counted(len(set(expected)), "GPU")


def test_what_is_not_there_or_makes_no_sense_is_refused(machine):
    machine(2)
    with pytest.raises(DeviceError):
        find_seats(RunConfig(device="cuda"), None, 1)
    for workers in (0, -1, 257):
        with pytest.raises(InputError, match="--workers"):
            find_seats(RunConfig(device="cpu"), workers, 1)


def test_a_worker_finds_its_gpu_and_its_share_of_the_threads(tmp_path):
    """A worker that tells its environment in place of a figure."""
    teller = tmp_path / "teller.py"
    teller.write_text(
        "import json, os, sys\n"
        "sys.stdin.readline()\n"
        "names = ('CUDA_VISIBLE_DEVICES', 'OMP_NUM_THREADS', 'PYTHONSAFEPATH')\n"
        "said = {'state': 'done', 'told': [os.environ.get(name) for name in names] + sys.argv[1:]}\n"
        "print(json.dumps(said), flush=True)\n"
    )
    pool = LocalPool([Seat("GPU-b2", 3)], [sys.executable, str(teller)])
    pool.begin(0, {})
    (ended,) = pool.wait(60)
    pool.close()
    assert ended.answer["told"] == ["GPU-b2", "3", "1", "3"]
