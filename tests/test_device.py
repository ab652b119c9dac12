import threading
import warnings
from types import SimpleNamespace

import pytest
import torch

from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.errors import DeviceError
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets import device as module
from musetalk_cli.nets.device import (
    check_index,
    computes_in_bf16,
    conv_layout,
    describe_device,
    exact_convolutions,
    resolve_device,
    resolve_dtype,
    wait_for,
)

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
PLAIN_X86 = "processor\t: 0\nmodel name\t: A\nflags\t\t: fpu sse avx512f avx512_vnni\nbugs\t\t: none\n"
BF16_X86 = "flags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (BF16_X86, True),
        ("flags : fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16 dgh\n", True),
        (PLAIN_X86, False),
        ("Features\t: fp asimd i8mm svebf16\n", False),
        ("model name\t: bf16 avx512_bf16\n", False),
        ("vmx flags\t: avx512_bf16\n", False),
        ("flags\t\t:\nbf16\n", False),
        ("", False),
    ],
)
def test_bf16_is_told_by_the_processors_flags(cpuinfo, expected):
    assert computes_in_bf16(cpuinfo) is expected


@pytest.mark.parametrize(
    ("name", "device", "on_cpu", "cpuinfo", "expected"),
    [
        ("auto", CPU, "fp32", BF16_X86, torch.float32),
        ("auto", CPU, "bf16", BF16_X86, torch.bfloat16),
        ("auto", CPU, "bf16", PLAIN_X86, torch.float32),
        ("auto", CUDA, "bf16", BF16_X86, torch.float16),
        ("fp32", CPU, "bf16", BF16_X86, torch.float32),
        ("bf16", CPU, "fp32", PLAIN_X86, torch.bfloat16),
        ("fp16", CPU, "bf16", BF16_X86, torch.float16),
        ("auto", MPS, "bf16", BF16_X86, torch.float32),
        ("fp16", MPS, "bf16", BF16_X86, torch.float16),
    ],
)
def test_the_precision_is_what_was_asked_for_or_suits(name, device, on_cpu, cpuinfo, expected, monkeypatch):
    monkeypatch.setattr(module, "read_cpuinfo", lambda: cpuinfo)
    assert resolve_dtype(name, device, on_cpu) == expected


@pytest.mark.parametrize(("capability", "works"), [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_bf16_is_refused_on_a_gpu_that_does_not_compute_in_it(capability, works, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    if works:
        assert resolve_dtype("bf16", CUDA) == torch.bfloat16
        return
    assert resolve_dtype("fp16", CUDA) == resolve_dtype("auto", CUDA) == torch.float16
    with pytest.raises(DeviceError, match=r"Tesla T4 \(sm_75\) does not compute in it") as raised:
        resolve_dtype("bf16", CUDA)
    assert raised.value.hint == "Use --precision fp16."


AT = " (Triggered internally at /pytorch/c10/cuda/CUDAFunctions.cpp:109.)"
TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040)"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (f"{TOO_OLD}. Please update it from the URL: http://www.nvidia.com/ Or go on.{AT}", TOO_OLD),
        (
            "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before? "
            f"Error 802: system not yet initialized{AT}",
            "Error 802: system not yet initialized",
        ),
        (f"CUDA unknown error - e.g. an environment, set up. Setting devices to zero.{AT}",
         "CUDA unknown error - e.g. an environment, set up"),
        (f"CUDA driver initialization failed.{AT}", "CUDA driver initialization failed"),
    ],
)  # fmt: skip
def test_why_a_gpu_cannot_be_used_is_what_cuda_says(told, said, monkeypatch, caplog):
    def no_gpu():
        warnings.warn(f"CUDA initialization: {told}", UserWarning, stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", no_gpu)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(DeviceError) as raised:
        resolve_device("cuda")
    assert raised.value.message == f"--device cuda cannot be used: {said}."
    assert not caplog.messages
    assert resolve_device("auto") == CPU
    assert caplog.messages == [f"The CPU computes, since the GPU cannot be used: {said}."]


def test_a_machine_without_a_gpu_is_told_nothing_of_one(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    assert not caplog.messages
    with pytest.raises(DeviceError, match="no NVIDIA GPU was found"):
        resolve_device("cuda")


def test_a_gpu_that_is_not_the_first_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for device in (CPU, CUDA, MPS, torch.device("cuda:0")):
        check_index(device)
    with pytest.raises(DeviceError, match="cuda:1 cannot be used") as raised:
        Engine(SimpleNamespace(device=torch.device("cuda:1")), JobConfig(), StageStats())
    assert "CUDA_VISIBLE_DEVICES=1" in raised.value.hint
    # the one that this thread was told to take, which other threads were not
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    with pytest.raises(DeviceError, match="cuda:2 cannot be used"):
        check_index(CUDA)
    check_index(CPU)


def test_channels_last_is_for_cuda_and_for_bf16():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert conv_layout(CUDA, dtype) == torch.channels_last
        assert conv_layout(MPS, dtype) == torch.contiguous_format
    assert conv_layout(CPU, torch.bfloat16) == torch.channels_last
    for dtype in (torch.float32, torch.float16):
        assert conv_layout(CPU, dtype) == torch.contiguous_format


@pytest.fixture
def metal(monkeypatch):
    """Says whether PyTorch has Metal, and whether there is a GPU for it."""

    def say(built, available):
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: built)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: available)

    return say


def test_metal_is_taken_where_it_is_and_asked_for(metal, monkeypatch, caplog):
    metal(built=True, available=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("mps") == MPS
    assert "--device mps is untried so far" in caplog.text
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(module, "_processor", lambda: "Apple M4")
    assert describe_device(MPS) == "the GPU of Apple M4"
    waited = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    wait_for(MPS)
    wait_for(CPU)
    assert waited == ["mps"]


@pytest.mark.parametrize(("built", "reason"), [(False, "is built without Metal"), (True, "no GPU of Apple")])
def test_metal_that_is_not_there_is_refused(built, reason, metal, musetalk):
    metal(built=built, available=False)
    with pytest.raises(DeviceError, match=reason):
        resolve_device("mps")
    code, out, err = musetalk("models", "verify", "demo", "--device", "mps")
    assert (code, out) == (1, "")
    assert reason in err
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("before", [True, False])
def test_convolutions_are_exact_as_long_as_any_thread_asks_for_it_and_then_as_before(monkeypatch, before):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    inside, out = threading.Event(), threading.Event()

    @exact_convolutions
    def other():
        inside.set()
        assert out.wait(60)

    thread = threading.Thread(target=other, daemon=True)
    with exact_convolutions, exact_convolutions:
        thread.start()
        assert inside.wait(60)
    assert not torch.backends.cudnn.allow_tf32
    out.set()
    thread.join(60)
    assert torch.backends.cudnn.allow_tf32 == before
    with pytest.raises(KeyError), exact_convolutions:
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before
