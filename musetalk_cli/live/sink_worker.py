"""One sink with its own thread and a short queue, so that none waits for another.

It is also the last place that an interrupt reaches: what was queued before one is shown as idle.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.engine.session import Session
from musetalk_cli.handoff import Handoff, HandoffClosed
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Frame, Image, Samples, Shown, Sink

log = logging.getLogger(__name__)

ABORT_S = 0.5
"""How long a sink may take to let go by itself before it is ended from outside."""
BEHIND_S = 10
"""How far a sink may fall behind where nobody can wait for it."""
MUTE_S = 0.01
"""Over how much time the sound dies away at an interrupt."""

Written = Callable[["SinkWorker", Frame, float], None]
"""Told of a frame, and when it was handed to the sink."""


class _AbandonedError(Exception):
    """The run has failed; what is queued does not matter any more."""


class SinkWorker:
    """Takes frames for one sink.

    Args:
        sink: Where they go; all its methods are called from one thread.
        session: Whose frames they are.
        capacity: Frames that may wait.
        clock: Where time comes from.
        stats: Where the time of writing goes.
        written: Told of every frame.
        failed: Told once, from the worker's thread, when the sink has failed after it was open.
        waits: Whoever hands over a frame waits while the queue is full. Where nobody can wait, frames beyond
            it keep their slot and their sound, and hold the picture before them, for `BEHIND_S` at most.

    Attributes:
        failure: What the sink failed with, or None.
        held: Frames whose own picture the sink was too slow for.
    """

    def __init__(
        self,
        sink: Sink,
        session: Session,
        capacity: int,
        clock: Clock,
        stats: StageStats,
        written: Written,
        failed: Callable[[SinkWorker, BaseException], None],
        *,
        waits: bool = True,
    ) -> None:
        self.held = 0
        self._holds = not waits
        self.failure: BaseException | None = None
        self._sink = sink
        self._session = session
        self._clock = clock
        self._stats = stats
        self._written = written
        self._failed = failed
        self._pictures = capacity
        behind = 0 if waits else int(BEHIND_S * session.stream.fps)
        self._queue: Handoff[Frame] = Handoff(capacity + behind)
        self._newest: Image | None = None
        self._opened = threading.Event()
        self._faded = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name=f"sink {sink.name}", daemon=True)

    @property
    def name(self) -> str:
        """What the sink is called."""
        return self._sink.name

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return len(self._queue)

    def open(self) -> None:
        """Open the sink.

        Raises:
            MuseTalkError: It cannot be opened.
        """
        self._thread.start()
        self._opened.wait()
        if self.failure is not None:
            raise self.failure

    def put(self, frame: Frame) -> None:
        """Hand over a frame; a sink that has failed takes and forgets it."""
        if len(self._queue) >= self._pictures and self._newest is not None and self._holds:
            frame = replace(frame, image=self._newest, shown=Shown.HELD)
            if not self.held:
                log.warning("%s takes frames too slowly; pictures are left out there.", self.name)
            self.held += 1
        self._newest = frame.image
        try:
            self._queue.put(frame)
        except HandoffClosed:
            return
        except BaseException as error:
            if error is not self.failure:
                raise

    def finish(self) -> None:
        """Complete the sink with what is queued; `failure` says how that went."""
        self._queue.close()
        self._thread.join()

    def abort(self) -> None:
        """End the sink at once, also one that was never opened, or that is complete."""
        self._abandoned = True
        self._queue.close(_AbandonedError())
        started = self._thread.ident is not None
        if started:
            self._thread.join(ABORT_S)
        self._let_go()  # from here where its own thread could not: what takes nothing ends no other way
        if started:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._sink.open(self._session.stream)
            self._opened.set()
            self._write_all()
        except _AbandonedError:
            self._end(None)
        except BaseException as error:
            self._end(None if self._abandoned else error)

    def _write_all(self) -> None:
        wrote = False
        for frame in self._queue:
            now = self._clock.now()
            with self._stats.span("sink"):
                self._sink.write(self._after_interrupt(frame))
            self._written(self, frame, now)
            wrote = True
        if wrote:
            self._sink.finish()
        else:
            self._sink.abort()

    def _end(self, failure: BaseException | None) -> None:
        self.failure = failure
        if failure is not None:
            self._queue.close(failure)
        self._let_go()
        was_open = self._opened.is_set()
        self._opened.set()
        if failure is not None and was_open:
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
        if request.epoch == self._session.epoch or frame.idle is None:
            self._faded = False
            return frame
        first, self._faded = not self._faded, True
        image = frame.idle
        if first and frame.shown is not Shown.IDLE:
            image = cv2.addWeighted(frame.image, 0.5, frame.idle, 0.5, 0)
        audio = self._muted(request.audio) if first else np.zeros_like(request.audio)
        return replace(frame, image=image, shown=Shown.IDLE, request=replace(request, audio=audio))

    def _muted(self, audio: Samples) -> Samples:
        muted = np.zeros_like(audio)
        length = min(len(audio), round(MUTE_S * self._session.stream.sample_rate))
        muted[:length] = audio[:length] * np.linspace(1, 0, length, dtype=np.float32)[:, None]
        return muted
