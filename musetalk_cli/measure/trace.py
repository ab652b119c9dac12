"""What every thread and the device did when: a file that Chrome's and Perfetto's trace viewers open.

The file is an array of events, written while the run goes. Where the process dies, what was flushed is an
array without its end, which the format allows.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from musetalk_cli import strict_json
from musetalk_cli.errors import OutputError

if TYPE_CHECKING:
    from types import TracebackType

    import torch

log = logging.getLogger(__name__)

MAX_EVENTS = 2_000_000
"""Events a file may hold: about 200 MB, and two hours of a stream at 25 fps; a viewer takes no more."""
FLUSH_EVENTS = 512
"""Events that may wait in memory."""
FLUSH_S = 1.0
"""Seconds that events may wait in memory while others come."""
ANCHOR_S = 10.0
"""Seconds an anchor serves: CUDA tells elapsed milliseconds in fp32, which is 1 us after this long."""
DEVICE_TRACK = "device"


class Trace:
    """A file of Chrome's trace event format; safe to use from several threads.

    It has its final name from the start, so that it is there to be read when a run was killed. After
    `MAX_EVENTS` events, or when the disk refuses more, it ends with one warning and the run goes on.

    Args:
        path: The file; replaced if it is there.

    Raises:
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._tracks: dict[tuple[int, str], int] = {}
        self._waiting: list[str] = []
        self._events = 0
        self._flushed = -math.inf
        self._file: TextIO | None = None
        try:
            self._file = path.open("w", encoding="utf-8")
            self._file.write("[\n" + self._metadata("process_name", 0, "musetalk"))
            self._file.flush()
        except OSError as error:
            self._drop_file()
            raise OutputError(
                f"--trace {path} cannot be written: {error.strerror}.", "Choose another place for the trace."
            ) from error

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def span(self, name: str, start: float, seconds: float, track: str | None = None) -> None:
        """Add a stretch of work.

        Args:
            name: What was done.
            start: Clock seconds at which it began.
            seconds: How long it took.
            track: Whose it is; None is the calling thread.
        """
        with self._lock:
            self._add("X", name, start, track, dur=round(seconds * 1e6, 3))

    def counter(self, name: str, value: float, at: float) -> None:
        """Add what a figure was at a clock time."""
        with self._lock:
            self._add("C", name, at, args={"value": value})

    def mark(self, name: str, at: float) -> None:
        """Add a moment at which something happened, in clock seconds."""
        with self._lock:
            self._add("i", name, at, s="p")

    def close(self) -> None:
        """Complete the file; what is added later is left out. Safe to call twice."""
        with self._lock:
            self._close()

    def _number(self, track: str | None) -> int:
        """The number of a track, whose name is written before its first event."""
        key = (threading.get_ident(), threading.current_thread().name) if track is None else (0, track)
        if key not in self._tracks:
            self._tracks[key] = len(self._tracks) + 1
            self._waiting.append(self._metadata("thread_name", self._tracks[key], key[1]))
        return self._tracks[key]

    def _metadata(self, kind: str, track: int, name: str) -> str:
        return self._event("M", name=kind, tid=track, args={"name": name})

    def _event(self, phase: str, **fields: object) -> str:
        return strict_json.dump({"ph": phase, "pid": self._process, **fields}, compact=True)

    def _add(self, phase: str, name: str, at: float, track: str | None = None, **fields: object) -> None:
        if self._file is None:
            return
        if self._events == MAX_EVENTS:
            log.warning("--trace %s is full with %d events; the run goes on.", self._path, MAX_EVENTS)
            self._close()
            return
        self._events += 1
        number = self._number(track)
        self._waiting.append(self._event(phase, name=name, tid=number, ts=round(at * 1e6, 3), **fields))
        if len(self._waiting) >= FLUSH_EVENTS or at - self._flushed >= FLUSH_S:
            self._flushed = at
            self._flush()

    def _flush(self, end: str = "") -> None:
        """Write whole events, so that what is on the disk never ends in a comma."""
        if self._file is None:
            return
        text = "".join(f",\n{event}" for event in self._waiting) + end
        self._waiting.clear()
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            log.warning("--trace %s ends early, and the run goes on: %s", self._path, error.strerror)
            self._drop_file()

    def _close(self) -> None:
        self._flush("\n]\n")
        self._drop_file()

    def _drop_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


@dataclass(frozen=True, slots=True)
class Anchor:
    """A moment known on both timelines.

    Attributes:
        event: On the device's.
        at: Clock seconds on the host's.
    """

    event: torch.cuda.Event
    at: float


class DeviceTrack:
    """Puts spans between CUDA events on the clock of the run.

    Anchors are recorded on a stream of their own, which is always idle: taking one waits for no work.
    The two timelines drift apart, so an anchor serves for `ANCHOR_S` seconds only.

    Args:
        trace: Where the spans go.
        device: The CUDA device.
        now: Clock seconds of the run.
    """

    def __init__(self, trace: Trace, device: torch.device, now: Callable[[], float]) -> None:
        self._trace = trace
        self._device = device
        self._now = now
        self._stream: torch.cuda.Stream | None = None
        self._anchor: Anchor | None = None

    def anchor(self) -> Anchor:
        """An anchor before everything that is recorded from now on."""
        if self._anchor is None or self._now() - self._anchor.at >= ANCHOR_S:
            self._anchor = self._take()
        return self._anchor

    def span(self, name: str, anchor: Anchor, start: torch.cuda.Event, end: torch.cuda.Event) -> None:
        """Add a stretch of the device's work between two events that it has passed."""
        began = anchor.at + anchor.event.elapsed_time(start) / 1e3
        self._trace.span(name, began, start.elapsed_time(end) / 1e3, DEVICE_TRACK)

    def _take(self) -> Anchor:
        import torch

        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        before = self._now()
        event.record(self._stream)
        event.synchronize()
        return Anchor(event, (before + self._now()) / 2)
