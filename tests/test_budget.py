"""The memory budget, and what running out of memory looks like in each library."""

import errno
import os

import cv2
import numpy as np
import pytest
import torch

from musetalk_cli.budget import VARIABLE, check_budget, is_out_of_memory, memory_budget
from musetalk_cli.errors import AvatarError, InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [("800M", 800 << 20), ("24G", 24 << 30), ("24 GiB", 24 << 30), ("2gb", 2 << 30), ("1T", 1 << 40)],
)
def test_the_budget_is_what_the_variable_says(monkeypatch, text, size):
    monkeypatch.setenv(VARIABLE, text)
    assert memory_budget() == size


@pytest.mark.parametrize("text", ["lots", "0G", "-1G", "24", "1e3G", "24 Gib/s"])
def test_what_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(InputError, match=VARIABLE):
        memory_budget()


def test_without_it_half_of_the_machine_is_the_budget(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory_budget() <= min(machine // 2, 16 << 30)


def test_what_is_over_the_budget_is_told_with_both_sizes(monkeypatch):
    monkeypatch.setenv(VARIABLE, "2G")
    check_budget(2 << 30, "It", AvatarError)
    with pytest.raises(AvatarError, match=r"It would take 3\.5 GiB of memory, more than the 2\.0 GiB it may"):
        check_budget(7 << 29, "It", AvatarError)


def raised(action):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any, and which one is the question
        action()
    return caught.value


def test_every_library_is_understood_when_memory_runs_out():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(raised(lambda: np.empty(1 << 60, np.uint8)))
    assert is_out_of_memory(raised(lambda: torch.empty(1 << 60, dtype=torch.uint8)))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    wide = np.zeros((1 << 15, 1 << 15), np.uint8)[:, :1]
    assert not is_out_of_memory(raised(lambda: cv2.resize(wide, (0, 0))))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
