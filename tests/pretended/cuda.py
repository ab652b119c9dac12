"""What stands for `torch.cuda` as long as a GPU is pretended, and is taken away again."""

import contextlib
import threading

import pytest
import torch

from . import graphs, guard
from .device import Device, Pace
from .tensors import CPU, Calls, Everywhere, OnDevice


class Stream:
    """A line of work of the device; what is given to it passes in order."""

    def __init__(self, *_, **__):
        self.line = object()

    def synchronize(self):
        OnDevice.gpu.wait("a stream", OnDevice.gpu.mark(self.line))

    def wait_event(self, event):
        if event.mark is not None:
            OnDevice.gpu.follow(self.line, event.mark)

    def wait_stream(self, other):
        OnDevice.gpu.follow(self.line, OnDevice.gpu.mark(other.line))


class Event:
    """A mark in the work of the device."""

    def __init__(self, enable_timing=False, blocking=False, **_):
        self.has_timing = enable_timing
        self.sleeps = blocking
        self.mark = None

    def record(self, stream=None):
        OnDevice.gpu.check()
        self.mark = OnDevice.gpu.mark((stream or current_stream()).line)

    def query(self):
        OnDevice.gpu.check()
        return self.mark is None or OnDevice.gpu.has_passed(self.mark)

    def synchronize(self):
        if not self.query():
            kind = "an event" if self.sleeps else "an event, and keeps a core busy"
            OnDevice.gpu.wait(kind, self.mark, implied=False)

    def elapsed_time(self, end):
        """A millisecond, whatever was done, if it could be told."""
        for event in (self, end):
            assert event.has_timing, "an event without timing tells no time"
            assert event.mark is not None, "an event that was not recorded tells no time"
            assert event.query(), "an event that was not passed tells no time"
        return 1.0


def current_stream(device=None):
    """The line of work that this thread gives work to."""
    stream = Stream()
    stream.line = OnDevice.gpu.line
    return stream


@contextlib.contextmanager
def _stream(stream):
    before, OnDevice.gpu.line = OnDevice.gpu.line, stream.line
    try:
        yield
    finally:
        OnDevice.gpu.line = before


def _stands_in():
    """What is replaced in `torch.cuda`."""

    def set_mode(mode):
        OnDevice.gpu.forbids_waits = mode in {2, "error"}

    def empty_cache():
        OnDevice.gpu.check()
        OnDevice.gpu.emptied += 1

    return {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_name": lambda device=None: "a pretended GPU",
        "Event": Event,
        "Stream": Stream,
        "current_stream": current_stream,
        "stream": _stream,
        "synchronize": lambda device=None: OnDevice.gpu.wait(
            "the device", *OnDevice.gpu.marks(), implied=False
        ),
        "get_sync_debug_mode": lambda: 2 * OnDevice.gpu.forbids_waits,
        "set_sync_debug_mode": set_mode,
        "empty_cache": empty_cache,
        **graphs.stands_in(lambda: OnDevice.gpu),
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
    }


def _enter(self):
    # shells of tensors have no views in inference mode; without gradients operators do the same
    self._inference_mode_context = torch.no_grad() if self.mode else contextlib.nullcontext()
    self._inference_mode_context.__enter__()


def _with_gpu(run):
    """What sees operators does so in its own thread: another takes its own."""

    def here(thread):
        with Calls(), Everywhere(), torch.no_grad():
            run(thread)

    return here


@contextlib.contextmanager
def pretended_gpu(folder, pace=Pace.LATE, inside=CPU):
    """A GPU that is pretended in this thread and in those that it starts.

    Args:
        folder: Where the device guard is built, once for all that share it.
        pace: How far the device is behind the host.
        inside: Where its tensors' numbers are, if there are any.

    Yields:
        Its state.
    """
    guard.load(folder)
    gpu = Device(pace, inside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnDevice, "gpu", gpu)
        patch.setattr(torch.inference_mode, "__enter__", _enter)
        for name, value in _stands_in().items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch._C, "_cuda_endAllocateToPool", lambda device, pool: pool.end())  # noqa: SLF001
        patch.setattr(torch._C, "_cuda_releasePool", lambda device, pool: pool.release())  # noqa: SLF001
        patch.setattr(threading.Thread, "run", _with_gpu(threading.Thread.run))
        with Calls(), Everywhere(), torch.no_grad():
            yield gpu
