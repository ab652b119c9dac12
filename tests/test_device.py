import pytest
import torch

from musetalk_cli.nets import device as module
from musetalk_cli.nets.device import computes_in_bf16, conv_layout, resolve_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
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
    ],
)
def test_the_precision_is_what_was_asked_for_or_suits(name, device, on_cpu, cpuinfo, expected, monkeypatch):
    monkeypatch.setattr(module, "read_cpuinfo", lambda: cpuinfo)
    assert resolve_dtype(name, device, on_cpu) == expected


def test_channels_last_is_for_cuda_and_for_bf16():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert conv_layout(CUDA, dtype) == torch.channels_last
    assert conv_layout(CPU, torch.bfloat16) == torch.channels_last
    for dtype in (torch.float32, torch.float16):
        assert conv_layout(CPU, dtype) == torch.contiguous_format
