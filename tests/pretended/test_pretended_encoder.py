"""The audio encoder on CUDA: how its sound comes up, and that a CUDA graph could hold its forward."""

import numpy as np
import pytest
import torch

from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.staging import BUFFERS, Staging
from pretended.cuda import pretended_gpu
from pretended.device import Pace

CUDA = torch.device("cuda")
LENGTH = 150


def arrays(number):
    """Two of different kinds, full of a number."""
    return np.full((2, 5), number, np.float32), np.full(3, number, np.int64)


def check(arrived, number):
    for array, tensor in zip(arrays(number), arrived, strict=True):
        assert (tensor.device.type, tensor.dtype) == ("cuda", torch.from_numpy(array).dtype)
        assert np.array_equal(tensor.cpu(), array)


@pytest.fixture
def pinned(monkeypatch):
    """Sizes of the pinned buffers that are made."""
    made, empty = [], torch.empty

    def counted(*size, **kwargs):
        made.extend(size[:1] if kwargs.get("pin_memory") else ())
        return empty(*size, **kwargs)

    monkeypatch.setattr(torch, "empty", counted)
    return made


def test_one_buffer_is_enough_for_a_device_that_keeps_up(guard_folder, pinned):
    with pretended_gpu(guard_folder, Pace.EARLY) as gpu:
        staging = Staging(CUDA)
        arrived = [staging(*arrays(number)) for number in range(20)]
        assert (gpu.waits, gpu.launches["copy_"]) == ([], 20)
        for number, tensors in enumerate(arrived):
            check(tensors, number)
    assert pinned == [80]


def test_a_device_that_is_behind_is_waited_for_late_and_for_one_copy(guard_folder, pinned):
    """That no buffer changes before its copy has passed, the pretended GPU sees to."""
    with pretended_gpu(guard_folder, Pace.LATE) as gpu:
        staging = Staging(CUDA)
        arrived = [staging(*arrays(number)) for number in range(BUFFERS)]
        assert gpu.waits == []
        arrived += [staging(*arrays(number)) for number in range(BUFFERS, 10)]
        assert [wait.passed for wait in gpu.waits] == [("up",)] * (10 - BUFFERS)
        for number, tensors in enumerate(arrived):
            check(tensors, number)
    assert pinned == [80] * BUFFERS


class Seen:
    """Keeps what was launched: names and shapes."""

    def __init__(self):
        self.operators = []

    def __call__(self, name, read, written):
        self.operators.append((name, [tuple(tensor.shape) for tensor in (*read, *written)]))


def requests(seed, count):
    random = np.random.default_rng(seed)
    starts = random.integers(0, LENGTH - 20, count)
    sounds = [random.standard_normal(random.integers(0, 48_000)).astype(np.float32) for _ in starts]
    return [EncodeRequest(one, range(at, at + 20), LENGTH) for one, at in zip(sounds, starts, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_windows_of_any_sound_wait_for_nothing_and_launch_the_same(guard_folder, on_gpu, on_cpu, dtype):
    """As a CUDA graph needs it, which launches what it was captured with."""
    with pretended_gpu(guard_folder, Pace.EARLY) as gpu:
        encode = AudioEncoder(on_gpu(dtype))
        launched, found = [], []
        gpu.forbids_waits = True
        for seed in range(3):
            gpu.observer = Seen()
            found.append(encode(requests(seed, 3)))
            launched.append(gpu.observer.operators)
        gpu.observer, gpu.forbids_waits = None, False
        found = [[rows.cpu() for rows in some] for some in found]
    assert launched[0] == launched[1] == launched[2]
    assert [name for name, _ in launched[0]].count("copy_") == 1
    reference = AudioEncoder(on_cpu)
    for seed, some in enumerate(found):
        for ours, theirs in zip(some, reference(requests(seed, 3)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2 if dtype == torch.float16 else 1e-4)
