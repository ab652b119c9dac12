"""Which device computes, in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import platform
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch

from musetalk_cli.config import DeviceName, PrecisionName
from musetalk_cli.errors import DeviceError

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of the two settings in glibc's malloc.h."""
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_TOLD_OF_CUDA = "CUDA initialization: "
"""How PyTorch begins to tell what CUDA said when it was asked for GPUs."""
_BF16_FROM = 8
"""Compute capability of the first GPUs that multiply bf16 numbers: Ampere."""
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Names of the feature in the flags of x86 processors, and in the features of Arm ones."""


def resolve_device(name: DeviceName) -> torch.device:
    """The device to compute on; `auto` is CUDA where there is one, and else the CPU.

    Raises:
        DeviceError: CUDA or Metal is wanted, and there is none.
    """
    if name == "mps":
        return _metal()
    if name == "cpu":
        return torch.device("cpu")
    available, said = _ask_for_cuda()
    if name == "cuda" and not available:
        if torch.version.cuda is None:
            said = f"PyTorch {torch.__version__} is built without CUDA"
        raise DeviceError(
            f"--device cuda cannot be used: {said or 'no NVIDIA GPU was found'}.",
            "Use --device cpu, or install a CUDA build of PyTorch on a machine with a GPU; "
            "`musetalk doctor` says what is there.",
        )
    if said and not available:
        log.warning("The CPU computes, since the GPU cannot be used: %s.", said)
    return torch.device("cuda" if available else "cpu")


def _ask_for_cuda() -> tuple[bool, str]:
    """Whether CUDA can be used, and what the driver says if not; nothing where there is no GPU.

    PyTorch tells a driver that is too old, or a GPU that is not up yet, in a warning, once in a process.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    told = (str(warning.message) for warning in caught)
    said = next((text for text in told if text.startswith(_TOLD_OF_CUDA)), "").removeprefix(_TOLD_OF_CUDA)
    # a number of CUDA's says most; else the first sentence does, and those behind it where drivers are
    number = re.search(r"Error \d+: [^(]*", said)
    return available, (number[0] if number else re.split(r"\.? \(Triggered|\. (?=[A-Z])", said)[0]).strip(
        " ."
    )


def check_index(device: torch.device) -> None:
    """Refuse a GPU that is not the first: what has no device of its own, like an event, is the first one's.

    Raises:
        DeviceError: It is another.
    """
    if device.type != "cuda":
        return
    # without a number it is the one of this thread, and other threads have another
    index = torch.cuda.current_device() if device.index is None else device.index
    if index:
        raise DeviceError(
            f"The device cuda:{index} cannot be used: the GPU has to be the first that the process sees.",
            f"Set CUDA_VISIBLE_DEVICES={index}, and use cuda:0.",
        )


def _metal() -> torch.device:
    if not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        reason = (
            "no GPU of Apple was found" if built else f"PyTorch {torch.__version__} is built without Metal"
        )
        raise DeviceError(
            f"--device mps cannot be used: {reason}.", "Use --device cpu, or a Mac with a GPU of Apple."
        )
    log.warning("--device mps is untried so far: compare its frames with those of --device cpu.")
    return torch.device("mps")


class _ExactConvolutions(contextlib.ContextDecorator):
    """Has convolutions in fp32 computed in fp32, where cuDNN takes TF32 unless it is told not to.

    The flag is the process's, and other networks in it may want TF32: it is set as long as any thread is
    inside, and then as it was before. What is in a half format, there or elsewhere, does not look at it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.backends.cudnn.allow_tf32
                torch.backends.cudnn.allow_tf32 = False
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.backends.cudnn.allow_tf32 = self._before


exact_convolutions = _ExactConvolutions()
"""A context, or around a function: whoever asks for fp32 has it exactly. From any thread."""


@contextlib.contextmanager
def measured_convolutions() -> Iterator[None]:
    """Let cuDNN measure which of its convolutions is fastest for each shape that is new, and remember it.

    It remembers for the thread alone, and also what it took unmeasured: a shape that was computed outside
    before is not measured any more.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def event_to_wait_for() -> torch.cuda.Event:
    """An event of the GPU that a thread waits for asleep, without spinning.

    CUDA's default is to spin: it keeps a core busy until the device is there, for most of a batch's time, and
    the threads that encode the frames before it need that core. A sleeper wakes later by the time of an
    interrupt, which is little beside the milliseconds of a batch; and where the loop has something else to do
    it asks with `query`, which never waits.
    """
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def resolve_dtype(
    name: PrecisionName, device: torch.device, on_cpu: Literal["fp32", "bf16"] = "fp32"
) -> torch.dtype:
    """Number format of the networks.

    Args:
        name: What was asked for; `auto` is fp16 on CUDA and fp32 elsewhere.
        device: Where they are.
        on_cpu: What the model may run in on a CPU with `auto`; bf16 is taken only where the processor
            computes in it, since it is slower than fp32 where it is emulated.

    Raises:
        DeviceError: bf16 is asked for on a GPU that does not compute in it.
    """
    if name == "bf16" and device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major < _BF16_FROM:
            raise DeviceError(
                f"--precision bf16 cannot be used: {describe_device(device)} (sm_{major}{minor}) does not "
                f"compute in it, as GPUs from sm_{_BF16_FROM}0 on do.",
                "Use --precision fp16.",
            )
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.float16
    in_bf16 = device.type == "cpu" and on_cpu == "bf16" and computes_in_bf16(read_cpuinfo())
    return torch.bfloat16 if in_bf16 else torch.float32


def computes_in_bf16(cpuinfo: str) -> bool:
    """True where the processor multiplies bf16 numbers itself: AVX512-BF16, AMX-BF16 or Arm's BF16.

    Args:
        cpuinfo: The text of Linux's `/proc/cpuinfo`; its flags are a stable interface of the kernel, while
            PyTorch tells these features in another private place with every few releases.
    """
    found = re.search(r"^(?:flags|Features)[ \t]*:(.*)$", cpuinfo, re.MULTILINE)
    return found is not None and not _BF16_FLAGS.isdisjoint(found[1].split())


def conv_layout(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """The memory format convolutions take and give.

    Channels-last is the fast one on CUDA, and on a CPU in bf16. In fp32 on a CPU it is not used: a
    channels-last GroupNorm takes the variance in one pass there and loses half of its digits. On Metal
    nothing was measured.
    """
    fast = device.type == "cuda" or (device.type == "cpu" and dtype == torch.bfloat16)
    return torch.channels_last if fast else torch.contiguous_format


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep large blocks that are freed, and give them out again.

    By default every large tensor is mapped afresh and returned to the system when freed, and the system
    zeroes each page of each activation of each frame again. Kept, a CPU run holds on to its peak memory and
    takes far less time (`benchmarks/allocator.md`).

    Returns:
        True where it was done; False where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 30) and mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1))


def describe_device(device: torch.device) -> str:
    """The device's name for people and reports."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "mps":
        return f"the GPU of {_processor()}"
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    found = re.search(r"model name\s*:\s*(.+)", read_cpuinfo())
    return found[1].strip() if found else platform.machine()


def read_cpuinfo() -> str:
    """What Linux tells of the processors; empty on other systems."""
    with contextlib.suppress(OSError):
        return Path("/proc/cpuinfo").read_text()
    return ""
