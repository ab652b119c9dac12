"""Workers on this machine: processes that are spoken to in lines of JSON over pipes."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import musetalk_cli
from musetalk_cli import strict_json
from musetalk_cli.run.batch.job import Json
from musetalk_cli.run.batch.pool import LOST, Advanced, Ended, Event, Lost, Prepares, Said
from musetalk_cli.strict_json import JsonError
from musetalk_cli.text import counted

LINE_BYTES = 1 << 20
"""A longer line is no answer."""
EVENTS = 1024
"""Events that wait to be looked at; a worker that says more waits."""
POLL_S = 0.1
"""How soon it is noticed that nobody looks at events any more."""
END_S = 20.0
"""How long a worker may take to end."""
_WORKER = "musetalk_cli.run.batch.worker"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Seat:
    """What a worker may use.

    Attributes:
        gpu: What `CUDA_VISIBLE_DEVICES` says to it; None on a CPU.
        threads: Threads that its libraries compute with.
    """

    gpu: str | None
    threads: int


class LocalPool:
    """Processes on this machine, one for each seat; each starts with its first job.

    Args:
        seats: What each of them may use.
        command: How a worker is called; its threads are added.

    Attributes:
        places: How many there are.
        device: What they compute on, in words.
    """

    def __init__(self, seats: Sequence[Seat], command: Sequence[str] | None = None) -> None:
        self._seats = seats
        self._command = command or [sys.executable, "-m", _WORKER]
        self._events: queue.Queue[tuple[_Process, Event]] = queue.Queue(EVENTS)
        self._closed = threading.Event()
        self._workers: dict[int, _Process] = {}
        self._killed: list[tuple[_Process, Lost]] = []
        self._unborn: list[Event] = []
        self.places = len(seats)
        gpus = len({seat.gpu for seat in seats if seat.gpu is not None})
        self.device = counted(gpus, "GPU") if gpus else f"CPU, {counted(seats[0].threads, 'thread')} each"

    @property
    def pids(self) -> dict[int, int]:
        """The process of each place that has one."""
        return {place: worker.pid for place, worker in self._workers.items()}

    def ready(self, place: int) -> bool:
        """True for every place: a worker starts with its first job."""
        return place < self.places

    def begin(self, place: int, task: Json) -> None:
        """Give a job to the worker of a place, starting it where there is none."""
        if place not in self._workers:
            seat = self._seats[place]
            command = [*self._command, str(seat.threads)]
            try:
                self._workers[place] = _Process(place, command, _environment(seat), self._tell)
            except OSError as error:  # no memory for one more, or no process
                self._unborn.append(Lost(place, f"could not be started: {error.strerror}."))
                return
        self._workers[place].give(task)

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened; a worker that is gone has its place free for another."""
        events, self._unborn = self._unborn, []
        # first, since it may take long, and what the others say meanwhile is heard in this turn
        while self._killed:
            worker, lost = self._killed.pop()
            worker.end()
            events.append(lost)
        told = list[tuple[_Process, Event]]()
        with suppress(queue.Empty):
            told.append(self._events.get(timeout=0 if events else timeout_s))
            while True:
                told.append(self._events.get_nowait())
        heard = [event for worker, event in told if worker is self._workers.get(event.place)]
        for event in heard:
            if isinstance(event, Lost):
                self._workers.pop(event.place).end()
        return [*events, *heard]

    def end(self, place: int, reason: str) -> None:
        """End the worker of a place at once; it is lost even where the system does not end it.

        What it still says counts no more.
        """
        if (worker := self._workers.pop(place, None)) is not None:
            worker.kill()
            self._killed.append((worker, Lost(place, reason)))

    def close(self) -> None:
        """End all of them; what one is at leaves nothing half-written."""
        self._closed.set()
        for worker in self._workers.values():
            worker.hang_up()
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def _tell(self, worker: _Process, event: Event) -> None:
        """Put an event in line; one that nobody will look at any more is dropped."""
        while not self._closed.is_set():
            try:
                self._events.put((worker, event), timeout=POLL_S)
            except queue.Full:
                continue
            return


class _Process:
    """One worker's process, with threads that read what it says.

    It has a session of its own, so that Ctrl-C in a terminal reaches only who gave it the work.
    """

    def __init__(
        self,
        place: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        put: Callable[[_Process, Event], None],
    ) -> None:
        self._place = place
        self._put = put
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._last: deque[str] = deque(maxlen=1)
        self._errors = threading.Thread(target=self._read_errors, name="worker-errors", daemon=True)
        self._answers = threading.Thread(target=self._read_answers, name="worker-answers", daemon=True)
        self._errors.start()
        self._answers.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def give(self, task: Json) -> None:
        """Send a job; that it is gone is told by what it says, which ends."""
        with suppress(OSError):
            stdin = _open(self._process.stdin)
            stdin.write(strict_json.dump(task, compact=True).encode() + b"\n")
            stdin.flush()

    def kill(self) -> None:
        """End it, with the programs that it has started: what it waits for may be one of them."""
        if self._process.poll() is None:
            self._kill_group()

    def hang_up(self) -> None:
        """Say that there is no more to do, and that nobody waits for what it does."""
        with suppress(OSError):
            _open(self._process.stdin).close()

    def end(self) -> None:
        """Wait until it has ended, or end it; one that cannot be ended is left.

        What it has started and left behind is ended too: a program that hangs would stay for ever.
        """
        self.hang_up()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._kill_group()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
        self._kill_group()
        self._answers.join(END_S)
        self._errors.join(END_S)

    def _kill_group(self) -> None:
        # nobody there, or, as some systems say of those that have ended, nobody who may be
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _read_errors(self) -> None:
        with _open(self._process.stderr) as stream:
            while line := stream.readline(LINE_BYTES):
                if text := line.decode("utf-8", "replace").strip():
                    self._last.append(text)

    def _read_answers(self) -> None:
        failure = ""
        with _open(self._process.stdout) as stream:
            while line := stream.readline(LINE_BYTES):
                event = self._event(line)
                if isinstance(event, Lost):
                    failure = event.reason
                elif event is not None:
                    self._put(self, event)
        self._put(self, Lost(self._place, failure or self._why()))

    def _event(self, line: bytes) -> Event | None:
        try:
            value = strict_json.parse(line)
        except JsonError:
            return None
        kinds = _EVENTS.keys() & set(value) if isinstance(value, dict) else set()
        return _EVENTS[kinds.pop()](self._place, value) if kinds else None

    def _why(self) -> str:
        """How it ended, for a message."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return "said nothing any more."
        self._kill_group()  # one of them may hold the pipe open
        self._errors.join(END_S)
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}."
        last = f": {self._last[0][:300]}" if self._last else "."
        return f"ended by itself{last}"


def _ended(place: int, value: Json) -> Event:
    if value["state"] == LOST:
        return Lost(place, f"could not go on: {value['error']}")
    return Ended(place, value)


_EVENTS: dict[str, Callable[[int, Json], Event]] = {
    "said": lambda place, value: Said(place, value["said"]),
    "frames": lambda place, value: Advanced(place, value["frames"], value["total"]),
    "prepares": lambda place, _: Prepares(place),
    "state": _ended,
}
"""What a line of a worker means, by what it holds one of; any other was printed by a library."""


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - all three are pipes
    return stream


def _environment(seat: Seat) -> dict[str, str]:
    """What a worker finds: this program, its GPU, and its share of the cores."""
    here = str(Path(musetalk_cli.__file__).absolute().parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    # the working folder is no place for modules: somebody's file there may be called like one
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    found |= dict.fromkeys(_THREADS, str(seat.threads))
    if seat.gpu is not None:
        found["CUDA_VISIBLE_DEVICES"] = seat.gpu
    return found
