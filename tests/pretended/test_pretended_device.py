"""The pretended GPU punishes what a real one would, and leaves nothing behind."""

import copy

import pytest
import torch

from musetalk_cli.nets.device import resolve_device
from pretended.cuda import pretended_gpu
from pretended.device import POISON, Pace, SynchronizingError
from pretended.tensors import DeviceMismatchError, OnDevice


def pinned(*shape):
    return torch.empty(*shape, dtype=torch.uint8, pin_memory=True)


def ramp(count=8):
    return torch.arange(count, dtype=torch.uint8, device="cuda")


def test_its_tensors_say_that_they_are_on_a_gpu_and_hold_numbers(gpu):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device="cuda")
    assert (x.is_cuda, x.device, x.shape, x.stride()) == (True, torch.device("cuda:0"), (2, 2), (2, 1))
    x[1:].add_(10)
    assert (x @ x.T).cpu().tolist() == [[5.0, 41.0], [41.0, 365.0]]
    assert x.transpose_(0, 1).shape == (2, 2)
    assert x.cpu().tolist() == [[1.0, 13.0], [2.0, 14.0]]
    copied = copy.deepcopy(torch.nn.Linear(2, 1, device="cuda"))
    assert copied.weight.is_cuda
    assert isinstance(copied.weight, torch.nn.Parameter)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, host: x + host,
        lambda x, host: torch.cat([x, host]),
        lambda x, host: host.add_(x),
        lambda x, host: x.index_select(0, host.long()),
        lambda x, host: torch.where(x > 1, x, host),
    ],
)
def test_what_mixes_host_and_device_raises(gpu, mix):
    with pytest.raises(DeviceMismatchError, match=r"on the same device.*cuda:0 and cpu"):
        mix(ramp(), torch.zeros(8, dtype=torch.uint8))


def test_a_number_from_the_host_goes_with_any_tensor(gpu):
    assert (ramp(3) * torch.tensor(2)).cpu().tolist() == [0, 2, 4]


def test_no_array_is_made_of_a_tensor_on_the_device(gpu):
    with pytest.raises(TypeError, match="numpy"):
        ramp().numpy()


def test_an_asynchronous_copy_down_is_poison_until_its_event(gpu):
    host, event = pinned(8), torch.cuda.Event()
    host.copy_(ramp(), non_blocking=True)
    event.record()
    assert not event.query()
    assert set(host.tolist()) == {POISON}
    event.synchronize()
    assert event.query()
    assert host.tolist() == list(range(8))


def test_what_the_device_does_later_does_not_change_a_copy(gpu):
    host, x, event = pinned(8), ramp(), torch.cuda.Event()
    host.copy_(x, non_blocking=True)
    event.record()
    x.zero_()
    event.synchronize()
    assert host.tolist() == list(range(8))


def test_an_event_lets_pass_what_came_before_it_and_no_more(gpu):
    first, second, event = pinned(8), pinned(8), torch.cuda.Event()
    first.copy_(ramp(), non_blocking=True)
    event.record()
    second.copy_(ramp(), non_blocking=True)
    event.synchronize()
    assert first.tolist() == list(range(8))
    assert set(second.tolist()) == {POISON}
    assert [wait.passed for wait in gpu.waits] == [("down",)]
    torch.cuda.synchronize()
    assert second.tolist() == list(range(8))


def test_a_device_that_is_early_has_done_all_at_once(guard_folder):
    with pretended_gpu(guard_folder, Pace.EARLY) as gpu:
        host, event = pinned(8), torch.cuda.Event()
        host.copy_(ramp(), non_blocking=True)
        event.record()
        assert event.query()
        assert host.tolist() == list(range(8))
        assert gpu.waits == []


def test_a_pinned_source_that_changes_too_early_is_a_race(gpu):
    host = torch.zeros(8, dtype=torch.uint8).pin_memory()
    x = torch.empty(8, dtype=torch.uint8, device="cuda")
    x.copy_(host, non_blocking=True)
    host.fill_(1)
    with pytest.raises(RuntimeError, match=r"race: .*test_a_pinned_source.*changed before it passed"):
        torch.cuda.synchronize()


def side_copy(host):
    """A copy to the device on a stream aside, which nobody waits for."""
    side, x, event = torch.cuda.Stream(), torch.empty(8, dtype=torch.uint8, device="cuda"), torch.cuda.Event()
    with torch.cuda.stream(side):
        x.copy_(host, non_blocking=True)
        event.record(side)
    return side, x, event


def test_what_comes_on_a_stream_aside_is_poison_until_it_is_waited_for(gpu):
    host = torch.arange(8, dtype=torch.uint8).pin_memory()
    _, x, event = side_copy(host)
    assert set((x + 0).cpu().tolist()) == {POISON}
    assert not event.query()
    event.synchronize()
    assert x.cpu().tolist() == list(range(8))
    _, other, event = side_copy(host)
    torch.cuda.current_stream().wait_event(event)
    assert (other + 0).cpu().tolist() == list(range(8))


def test_a_wait_for_one_stream_lets_no_other_pass(gpu):
    down, host = pinned(8), torch.arange(8, dtype=torch.uint8).pin_memory()
    down.copy_(ramp(), non_blocking=True)
    side, _, event = side_copy(host)
    side.synchronize()
    assert event.query()
    assert set(down.tolist()) == {POISON}
    torch.cuda.current_stream().synchronize()
    assert down.tolist() == list(range(8))


def test_a_stream_that_comes_after_another_waits_for_it(gpu):
    down, side = pinned(8), torch.cuda.Stream()
    down.copy_(ramp(), non_blocking=True)
    side.wait_stream(torch.cuda.current_stream())
    assert set(down.tolist()) == {POISON}, "nobody waited yet"
    side.synchronize()
    assert down.tolist() == list(range(8))


WAITING = {
    "_local_scalar_dense": lambda x: x[0].item(),
    "nonzero": torch.nonzero,
    "a boolean mask": lambda x: x[x > 1],
    "a copy to pageable memory": lambda x: x.cpu(),
    "a copy from pageable memory": lambda x: torch.zeros(3).to("cuda"),
    "a stream": lambda x: torch.cuda.current_stream().synchronize(),
}


@pytest.mark.parametrize("kind", WAITING)
def test_every_wait_is_kept_with_its_caller_and_can_be_forbidden(gpu, kind):
    x = ramp()
    WAITING[kind](x)
    [wait] = gpu.waits
    assert wait.kind == kind
    assert (wait.by.file, wait.by.function) in {
        ("pretended/test_pretended_device.py", name)
        for name in ("<lambda>", test_every_wait_is_kept_with_its_caller_and_can_be_forbidden.__name__)
    }
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(SynchronizingError, match=kind):
        WAITING[kind](x)


def test_operators_are_counted_and_views_are_not(gpu):
    x = ramp()
    gpu.launches.clear()
    y = (x.view(2, 4)[0] + 1).unsqueeze(0).expand(3, 4)
    assert gpu.launches == {"add": 1}
    torch.nn.functional.scaled_dot_product_attention(*[y.float()[None]] * 3)
    assert gpu.launches == {"add": 1, "_to_copy": 1, "scaled_dot_product_attention": 1}


def test_nothing_of_it_is_left(guard_folder):
    replaced = ("is_available", "Event", "Stream", "synchronize", "_lazy_init")
    before = [getattr(torch.cuda, name) for name in replaced], torch.inference_mode.__enter__
    with pretended_gpu(guard_folder):
        assert resolve_device("auto").type == "cuda"
        with torch.inference_mode():
            assert not torch.is_inference_mode_enabled()
    assert ([getattr(torch.cuda, name) for name in replaced], torch.inference_mode.__enter__) == before
    assert OnDevice.gpu is None
    assert resolve_device("auto").type == "cpu"
    with pytest.raises((AssertionError, RuntimeError), match="CUDA"):
        torch.empty(1, device="cuda")
    with torch.inference_mode():
        assert torch.zeros(1).is_inference()
    weight = torch.ones(3, requires_grad=True)
    (weight * 2).sum().backward()
    assert weight.grad.tolist() == [2, 2, 2]
