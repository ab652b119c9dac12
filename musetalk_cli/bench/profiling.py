"""Where the time of a batch goes, operator by operator: PyTorch's profiler, as a trace and a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, supported_activities

from musetalk_cli import strict_json
from musetalk_cli.errors import OutputError
from musetalk_cli.nets.device import wait_for
from musetalk_cli.sinks.checks import check_writable, refused, write_whole

TRACE, TABLE = "trace.json", "operators.json"
"""The files: for Chrome's or Perfetto's trace viewer, and the operators that take most."""
BATCHES = 2
"""Batches that are recorded: a trace shows how one follows the other, and more only add bytes."""
MOST_BYTES = 256 << 20
"""A larger trace is not kept: no viewer opens it."""
TOP = 20
OPTION = "--profile"


@dataclass(frozen=True, slots=True)
class Operator:
    """What one operator took in all recorded batches; on a GPU one kernel.

    Attributes:
        name: Which.
        calls: How often it was called.
        ms: Milliseconds on the device, without the operators it calls; on a CPU, of the processor.
        share: Of all operators, 0..1.
    """

    name: str
    calls: int
    ms: float
    share: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What was recorded.

    Attributes:
        trace: The file with the trace.
        batches: Batches in it.
        size: Frames in each.
        operators: Those that took most, in descending order.
    """

    trace: Path
    batches: int
    size: int
    operators: list[Operator]

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        return asdict(self) | {"trace": str(self.trace)}


def check_folder(folder: Path) -> None:
    """Make the folder of a profile, and make sure that it takes files.

    Raises:
        OutputError: It does not, or is none.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{OPTION} {folder} cannot be made: {error.strerror}.", "Choose another folder."
        ) from error
    check_writable(folder, f"The folder {OPTION} {folder}")


def record(work: Callable[[], object], size: int, device: torch.device, folder: Path) -> Profile:
    """Do some work a few times and record it; what was there of an earlier profile is replaced.

    Args:
        work: A batch.
        size: Frames in it.
        device: Where it is done.
        folder: Where the files go; it is there.

    Raises:
        OutputError: The files cannot be written, or the trace is too large.
    """
    on_cuda = device.type == "cuda"
    known = supported_activities()  # type: ignore[no-untyped-call]
    on_device = [ProfilerActivity.CUDA] if on_cuda and ProfilerActivity.CUDA in known else []
    activities = [ProfilerActivity.CPU, *on_device]
    work()
    with profile(activities=activities) as recorded:
        for _ in range(BATCHES):
            work()
        wait_for(device)
    result = Profile(folder / TRACE, BATCHES, size, _operators(recorded, on_cuda=bool(on_device)))
    _write_trace(recorded, folder / TRACE)
    text = strict_json.dump(strict_json.finite(result.as_json()), indent=2) + "\n"
    write_whole(folder / TABLE, text.encode(), OPTION)
    return result


def _operators(recorded: profile, *, on_cuda: bool) -> list[Operator]:
    # older versions of PyTorch have another name for the time on the device
    own = ("self_device_time_total", "self_cuda_time_total") if on_cuda else ("self_cpu_time_total",)
    found = []
    for entry in recorded.key_averages():
        if on_cuda and entry.device_type.name != "CUDA":
            continue  # of an operator its kernels tell the same time
        took_us = next((float(getattr(entry, name)) for name in own if hasattr(entry, name)), 0.0)
        if took_us > 0:
            found.append((entry.key, int(entry.count), took_us / 1e3))
    total = sum(ms for *_, ms in found) or 1.0
    found.sort(key=lambda one: -one[2])
    return [Operator(name, calls, ms, ms / total) for name, calls, ms in found[:TOP]]


def _write_trace(recorded: profile, path: Path) -> None:
    partial = path.with_name(f".{path.name}")
    try:
        recorded.export_chrome_trace(str(partial))
        if (size := partial.stat().st_size) > MOST_BYTES:
            raise OutputError(
                f"The trace of {OPTION} would have {size >> 20} MB, more than a viewer opens.",
                "Profile a smaller --batch-size.",
            )
        partial.rename(path)
    except OSError as error:
        raise refused(f"{OPTION} {path}", error, path.parent) from error
    except RuntimeError as error:
        raise OutputError(f"{OPTION} {path} cannot be written.", "Check the free space.") from error
    finally:
        partial.unlink(missing_ok=True)
