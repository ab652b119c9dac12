"""A sink's own thread and short queue, so that no sink waits for another.

It is also the last place that an interrupt reaches: what was queued before one is shown as idle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from musetalk_cli.engine.fate import decide
from musetalk_cli.errors import OutputError
from musetalk_cli.handoff import Handoff, HandoffClosed
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Frame, Image, Samples, Sink, StreamFormat

log = logging.getLogger(__name__)

ABORT_S = 0.5
"""How long a sink may take to let go by itself before it is ended from outside."""
BEHIND_S = 10
"""How far a sink may fall behind where nobody waits for it; then it is closed."""
MUTE_S = 0.01
"""Over how much time the sound dies away at an interrupt."""

Written = Callable[["SinkWorker", Frame, float], None]
"""Told of a frame as it is shown, and when it was handed to the sink."""
Failed = Callable[["SinkWorker", BaseException], None]
"""Told once when a sink that was open has failed, in whatever thread found it."""


@dataclass(frozen=True, slots=True, eq=False)
class Queueing:
    """How frames wait for a sink.

    Attributes:
        stream: Format of the frames.
        capacity: Frames that may wait with a picture of their own.
        waits: Whoever hands over a frame waits while the queue is full. Else frames beyond the capacity keep
            their slot and their sound and hold the picture before them, for `BEHIND_S`; then the sink fails.
        epoch: How many interrupts the stream has seen.
        wait_s: Seconds from when a frame is handed over to when it is written, where that is not at once.
    """

    stream: StreamFormat
    capacity: int
    waits: bool
    epoch: Callable[[], int]
    wait_s: Callable[[], float] = lambda: 0.0

    @property
    def bound(self) -> int:
        """Frames that may wait at the most."""
        return self.capacity + (0 if self.waits else int(BEHIND_S * self.stream.fps))


class _AbandonedError(Exception):
    """The stream has failed; what is queued does not matter any more."""


class SinkWorker:
    """Takes frames for one sink.

    Args:
        sink: Where they go; all its methods but `abort` are called from one thread.
        name: What messages and figures call it.
        queueing: How frames wait.
        stats: Where the time of writing goes, and where time comes from.
        written: Told of every frame.
        failed: Told once, when the sink has failed after it was open.

    Attributes:
        name: What messages and figures call it.
        failure: What the sink failed with, or None.
        held: Frames whose own picture the sink was too slow for.
    """

    def __init__(
        self,
        sink: Sink,
        name: str,
        queueing: Queueing,
        stats: StageStats,
        written: Written,
        failed: Failed,
    ) -> None:
        self.held = 0
        self.failure: BaseException | None = None
        self.name = name
        self._sink = sink
        self._queueing = queueing
        self._stats = stats
        self._written = written
        self._failed = failed
        self._queue: Handoff[tuple[Frame, float]] = Handoff(queueing.bound)
        self._hurry = threading.Event()
        self._is_last = False
        self._newest: Image | None = None
        self._opened = threading.Event()
        self._faded = False
        self._abandoned = False
        self._ended = False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, name=f"sink {name}", daemon=True)]

    @property
    def watched(self) -> bool:
        """True where somebody watches the sink as the frames come."""
        return self._sink.watched

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return self._queue.waiting

    def open(self) -> None:
        """Open the sink.

        Raises:
            MuseTalkError: It cannot be opened.
        """
        # opened in the thread that writes: windows and devices may belong to the thread that made them
        self._threads[0].start()
        self._opened.wait()
        if self.failure is not None:
            raise self.failure

    def put(self, frame: Frame) -> None:
        """Hand over a frame; a sink that has failed takes and forgets it."""
        try:
            now = self._stats.clock.now()
            if self._queueing.waits:
                self._queue.put((frame, now))
            elif not self._queue.offer((self._held_back(frame), now)):
                self._give_up()
        except HandoffClosed:
            return
        except BaseException as error:
            if error is not self.failure and not isinstance(error, _AbandonedError):
                raise

    def take_last(self) -> None:
        """What comes from now on comes at once: the stream was stopped, and the sink is not slow."""
        self._is_last = True

    def close(self) -> None:
        """Take no more frames, without waiting; what is queued is still written."""
        self._queue.close()

    def finish(self) -> None:
        """Complete the sink with what is queued; `failure` says how that went.

        Where nobody waits for the sink, it has `BEHIND_S` for that.
        """
        self.close()
        if self._started and not self._queueing.waits:
            self._threads[0].join(BEHIND_S)
            if self._threads[0].is_alive():
                self._give_up()
        self._join()

    def abandon(self) -> None:
        """Take nothing any more, without waiting: what is queued is forgotten, and whoever waits goes on."""
        self._abandoned = True
        self._hurry.set()
        self._queue.close(_AbandonedError())

    def abort(self) -> None:
        """End the sink at once, also one that was never opened, or that is complete."""
        self.abandon()
        if self._started:
            self._threads[0].join(ABORT_S)
        self._let_go()  # from here where its own thread could not: what takes nothing ends no other way
        self._join()

    @property
    def _started(self) -> bool:
        return self._threads[0].ident is not None

    def _join(self) -> None:
        if self._started:
            for thread in self._threads:
                thread.join()

    def _held_back(self, frame: Frame) -> Frame:
        """A frame that will wait: as it is while there is room for its picture, else with the one before."""
        # nobody else adds frames, so there is no less room when this one is offered
        is_full = self._queue.waiting >= self._queueing.capacity and not self._is_last
        # late frames show the picture before them anyway: however many come at once, none is left out
        if is_full and self._newest is not None and frame.image is not self._newest:
            frame = replace(frame, image=self._newest, fate=decide(1, has_face=True, late=True))
            if not self.held:
                behind = self._queueing.capacity
                log.warning("%s is %d frames behind: pictures are left out there.", self.name, behind)
            self.held += 1
        self._newest = frame.image
        return frame

    def _give_up(self) -> None:
        """Close a sink that fell too far behind, from outside: its own thread waits in it."""
        failure = OutputError(
            f"{self.name} is {BEHIND_S} s behind and was closed.",
            "Give it less to write, or a faster disk, line or reader.",
        )
        self._fail(failure)
        ending = threading.Thread(target=self._let_go, name=f"end of {self.name}", daemon=True)
        self._threads.append(ending)
        ending.start()

    def _run(self) -> None:
        try:
            self._sink.open(self._queueing.stream)
            self._opened.set()
            self._write_all()
        except _AbandonedError:
            self._let_go()
        except BaseException as error:
            if not self._abandoned:
                self._fail(error)
            self._let_go()
        self._opened.set()

    def _write_all(self) -> None:
        # a result without a frame is none
        wrote = False
        for frame, handed in self._queue:
            self._wait(handed)
            now = self._stats.clock.now()
            shown = self._after_interrupt(frame)
            with self._stats.span("sink"):
                self._sink.write(shown)
            self._written(self, shown, now)
            wrote = True
        if wrote:
            self._sink.finish()
        else:
            self._sink.abort()

    def _wait(self, handed: float) -> None:
        """Wait until a frame is to be written that was handed over at a time.

        Raises:
            _AbandonedError: It is not to be written any more.
        """
        clock = self._stats.clock
        seconds = handed + self._queueing.wait_s() - clock.now()
        if seconds > 0:
            clock.wait(seconds, self._hurry)
        self._queue.raise_error()

    def _fail(self, failure: BaseException) -> None:
        """Keep the first failure, and tell of it where the sink was open."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            self.failure = failure
        self._queue.close(failure)
        # one that did not open is told by `open`, to whoever waits in it
        if self._opened.is_set():
            self._failed(self, failure)

    def _let_go(self) -> None:
        try:
            self._sink.abort()
        except Exception as error:
            log.warning("A result could not be removed: %s", error)

    def _after_interrupt(self, frame: Frame) -> Frame:
        """A frame as it is; or, where it was queued before an interrupt, its idle picture in silence.

        The first after a frame that was shown is half-way between both, and its sound dies away.
        """
        request = frame.request
        if request.epoch == self._queueing.epoch() or frame.idle is None:
            self._faded = False
            return frame
        first, self._faded = not self._faded, True
        image = frame.idle
        if first and not frame.fate.is_idle:
            image = cv2.addWeighted(frame.image, 0.5, frame.idle, 0.5, 0)
        audio = self._muted(request.audio) if first else np.zeros_like(request.audio)
        fate = decide(0, has_face=False, late=False, discarded=True)
        return replace(frame, image=image, fate=fate, request=replace(request, audio=audio, ends=()))

    def _muted(self, audio: Samples) -> Samples:
        muted = np.zeros_like(audio)
        length = min(len(audio), round(MUTE_S * self._queueing.stream.sample_rate))
        muted[:length] = audio[:length] * np.linspace(1, 0, length, dtype=np.float32)[:, None]
        return muted
