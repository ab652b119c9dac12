"""The state of the pretended GPU: what it still has to do, who waited for it, and what was launched."""

import enum
import inspect
import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

MACHINERY = Path(__file__).parent
TESTS = MACHINERY.parent
PRODUCT = TESTS.parent / "musetalk_cli"
POISON = 0xA5
"""What every byte of pinned memory holds while a copy to it is under way."""


class Pace(enum.Enum):
    """How far the device is behind the host: a real one is anywhere between the two."""

    LATE = "does what it is waited for, and no more"
    EARLY = "has done all before the host looks"


@dataclass(frozen=True)
class CallSite:
    """Where something was called: the innermost function of the product, or of a test."""

    file: str
    function: str
    line: int

    def __str__(self):
        return f"{self.function} ({self.file}:{self.line})"


@dataclass(frozen=True)
class Wait:
    """The host waited for the device.

    Attributes:
        kind: What for.
        by: Who.
        passed: The copies that had to pass for it: each `up` or `down`.
    """

    kind: str
    by: CallSite
    passed: tuple[str, ...]

    def __str__(self):
        return f"{self.kind} in {self.by}"


class SynchronizingError(RuntimeError):
    """As PyTorch's, where its debug mode forbids what waits without being asked to."""


class Mark(NamedTuple):
    """A moment in a line of work: how much had been given to it."""

    line: object
    given: int


class Device:
    """One pretended GPU.

    Work that changes only the device is done at once. What the host can see of it is queued: copies from and
    to pinned memory, each of which passes in its turn. So is what is copied up in another line of work than
    the main one; until it passes, the device's memory holds poison.

    Attributes:
        pace: How far it is behind.
        inside: Where the numbers are; on `meta` there are none, and networks of any size cost nothing.
        waits: Who waited for it, in order.
        launches: Operators that a real device would run, by name; views and allocations are none.
        forbids_waits: Whether what waits without being asked to raises.
        observer: Is told every launch, if there is one.
        emptied: How often memory that nothing uses was given back.
        compiled: Triton's kernels, each as often as Triton compiles it: once for each kind of arguments.
        lives: Launches until it fails for good, as after an illegal access to memory; None is never.
    """

    def __init__(self, pace, inside):
        self.pace = pace
        self.inside = inside
        self.waits = []
        self.launches = Counter()
        self.forbids_waits = False
        self.observer = None
        self.emptied = 0
        self.compiled = set()
        self.lives = None
        self._lock = threading.RLock()
        self._queues = defaultdict(deque)
        self._given = Counter()
        self._pinned = {}
        self._local = threading.local()

    @property
    def tape(self):
        """What this thread captures, if it does."""
        return getattr(self._local, "tape", None)

    @tape.setter
    def tape(self, tape):
        self._local.tape = tape

    def check(self):
        """Raise where it has failed, as whatever a program calls then."""
        if self.lives is not None and self.lives <= 0:
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered\nit may have been reported late"
            )

    def launch(self, name, read, written):
        """Count an operator: its name, and the host's tensors that it reads and writes; none in a capture."""
        if self.tape is not None:
            return
        self.lives = None if self.lives is None else self.lives - 1
        self.check()
        self.launches[name] += 1
        if self.observer is not None:
            self.observer(name, read, written)

    @property
    def line(self):
        """The line of work of this thread; None is the main one."""
        return getattr(self._local, "line", None)

    @line.setter
    def line(self, line):
        self._local.line = line

    def mark(self, line=None):
        """How much work was given to a line so far."""
        return Mark(line, self._given[line])

    def marks(self):
        """How much work was given to each line so far."""
        return [self.mark(line) for line in list(self._given)]

    def has_passed(self, mark):
        """True where it has done all that was given to it before a mark."""
        return mark.given <= self._given[mark.line] - len(self._queues[mark.line])

    def _enqueue(self, line, way, work):
        assert self.tape is None, "copies between host and device are not captured here"
        with self._lock:
            self._queues[line].append((way, work))
            self._given[line] += 1
            if self.pace is Pace.EARLY:
                self._pass(self.mark(line))

    def follow(self, line, mark):
        """What is given to a line from now on comes after a mark in another."""
        if line is None:  # its work is done at once
            self._pass(mark)
        else:
            self._enqueue(line, "turn", lambda: self._pass(mark))

    def wait(self, kind, *marks, implied=True):
        """Wait until it has passed marks, or all of this thread's line; `implied` where nobody asked to."""
        self.check()
        if self.tape is not None:
            self.tape.spoilt = True
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        place = caller()
        if self.forbids_waits and implied:
            raise SynchronizingError(f"called a synchronizing CUDA operation: {kind} in {place}")
        marks = marks or [self.mark(self.line)]
        self.waits.append(Wait(kind, place, tuple(way for mark in marks for way in self._pass(mark))))

    def _pass(self, mark):
        passed = []
        with self._lock:
            while not self.has_passed(mark):
                way, work = self._queues[mark.line].popleft()
                work()
                passed.append(way)
        return tuple(passed)

    def pin(self, tensor):
        """Remember that a host tensor's memory is pinned; kept, so that no other takes its address."""
        storage = tensor.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return tensor

    def is_pinned(self, tensor):
        """True where a host tensor's memory is pinned."""
        return tensor.untyped_storage().data_ptr() in self._pinned

    def copy_down(self, target, source):
        """Copy to pinned memory when the device gets there; both are the host's tensors inside."""
        now = source.clone()  # what the device does later does not change it
        _bytes(target).fill_(POISON)
        self._enqueue(self.line, "down", lambda: target.copy_(now))

    def copy_up(self, target, source):
        """Copy from pinned memory, which is not to change before the device gets there."""
        place, before, aside = caller(), _bytes(source).clone(), self.line is not None
        if aside:
            target.fill_(POISON)
        else:
            target.copy_(source)

        def arrive():
            if not torch.equal(_bytes(source), before):
                raise RuntimeError(f"race: the pinned source of the copy in {place} changed before it passed")
            if aside:
                target.copy_(source)

        self._enqueue(self.line, "up", arrive)


def _bytes(tensor):
    """The bytes of a contiguous host tensor, whatever they mean."""
    return tensor.view(-1).view(torch.uint8)


def caller():
    """The innermost place outside of the pretended GPU."""
    frame = inspect.currentframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        machinery = path.parent == MACHINERY and not path.name.startswith("test_")
        for root in () if machinery else (PRODUCT, TESTS):
            if path.is_relative_to(root):
                return CallSite(str(path.relative_to(root)), frame.f_code.co_name, frame.f_lineno)
        frame = frame.f_back
    return CallSite("?", "?", 0)
