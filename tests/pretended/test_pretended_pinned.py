"""Pinned slots in turn: whose one is, how long, and what a slot used again too early would spoil."""

import numpy as np
import pytest
import torch

from musetalk_cli.engine.compositor import GpuPath
from musetalk_cli.engine.failures import telling_device_errors
from musetalk_cli.engine.flights import Flights
from musetalk_cli.engine.pinned import PinnedSlots
from musetalk_cli.errors import DeviceError
from pretended.cuda import pretended_gpu
from pretended.device import Pace
from pretended.speaking import apart, make_engine, speak

CUDA = torch.device("cuda")


class Careless(PinnedSlots):
    """Takes a slot again though its patches wait to be fetched."""

    def __init__(self, slots):
        super().__init__(slots)
        self._unread = Forgetful()


class Forgetful(dict):
    """Holds that nothing waits to be fetched."""

    def __getitem__(self, slot):
        return False


def test_a_pinned_slot_is_not_used_again_before_its_patches_were_fetched(gpu, on_gpu, avatars):
    with pytest.raises(RuntimeError, match="More batches are on their way than there are pinned slots: 1"):
        speak(make_engine(on_gpu(), images=GpuPath(torch.device("cuda"), 1)), *avatars)


@pytest.mark.slow
@pytest.mark.parametrize("pace", [Pace.EARLY, pytest.param(Pace.LATE, marks=pytest.mark.slow)])
def test_a_pinned_slot_used_again_too_early_spoils_frames(
    guard_folder, on_gpu, avatars, expected, pace, monkeypatch
):
    """With what refuses it taken away, and batches landed as late as they may."""
    with pretended_gpu(guard_folder, pace):
        monkeypatch.setattr("musetalk_cli.engine.compositor.PinnedSlots", Careless)
        path = GpuPath(torch.device("cuda"), 1)
        monkeypatch.setattr(Flights, "land_passed", lambda flights: 0)
        spoken = speak(make_engine(on_gpu(), images=path), *avatars)
    assert apart(spoken, expected) > 10


def test_a_slot_for_which_nothing_could_be_pinned_is_free_again(gpu, monkeypatch):
    slots, data = PinnedSlots(1), torch.arange(8, dtype=torch.uint8, device="cuda")
    empty = torch.empty

    def full(*size, **options):
        if options.get("pin_memory"):
            raise RuntimeError("CUDA error: out of memory")
        return empty(*size, **options)

    refused = pytest.raises(DeviceError, match="not enough memory")
    with monkeypatch.context() as patch, refused, telling_device_errors():
        patch.setattr(torch, "empty", full)
        slots.send(data)
    assert slots.send(data)().tolist() == list(range(8))


def test_what_is_fetched_at_once_finds_a_slot_as_long_as_one_is_free(gpu):
    """As faces that are made again, however many, while another batch is on its way."""
    slots = PinnedSlots(3)

    def send(value):
        target = torch.empty(1, 2, dtype=torch.int64, device="cuda")
        slots.upload(np.full((1, 2), value), target)
        fetch = slots.send(torch.full((8,), value, dtype=torch.uint8, device="cuda"))
        return target, fetch

    (_, first), (_, second) = send(1), send(2)
    assert first().tolist() == [1] * 8
    for value in range(3, 8):
        target, fetch = send(value)
        assert fetch().tolist() == [value] * 8
        assert target.cpu().tolist() == [[value, value]]
    assert second().tolist() == [2] * 8
    waiting = [send(value)[1] for value in (8, 9, 10)]
    with pytest.raises(RuntimeError, match="More batches are on their way than there are pinned slots: 3"):
        send(11)
    assert [fetch()[0] for fetch in waiting] == [8, 9, 10]
