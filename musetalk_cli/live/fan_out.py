"""Fan-out: every frame to every sink, by one worker for each; they are opened and ended together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from musetalk_cli.live.sink_worker import Failed, Queueing, SinkWorker, Written
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Frame, HeardSink, Sink


class FanOut:
    """The workers of a stream's sinks.

    Where one of them is heard, pictures that are watched wait until their sound is about to be: nobody sees
    less than a frame, so a frame less than it takes.

    Args:
        sinks: Where the frames go.
        queueing: How frames wait for each.
        stats: Where the time of writing goes, and where time comes from.
        written: Told of every frame and the worker that handed it over.
        failed: Told once for each sink that failed after it was open.
    """

    def __init__(
        self, sinks: Sequence[Sink], queueing: Queueing, stats: StageStats, written: Written, failed: Failed
    ) -> None:
        names = [sink.name for sink in sinks]
        self._heard = [sink for sink in sinks if isinstance(sink, HeardSink)]
        self._frame_s = float(1 / queueing.stream.fps)
        watched = replace(queueing, wait_s=self._wait_s) if self._heard else queueing
        self._workers = [
            SinkWorker(
                sink,
                _told_apart(names, number),
                watched if sink.watched and sink not in self._heard else queueing,
                stats,
                written,
                failed,
            )
            for number, sink in enumerate(sinks)
        ]

    @property
    def waiting(self) -> int:
        """Frames that wait for the sink that is furthest behind."""
        return max((worker.waiting for worker in self._workers), default=0)

    @property
    def held(self) -> int:
        """Pictures that sinks were too slow for."""
        return sum(worker.held for worker in self._workers)

    @property
    def breaks(self) -> int:
        """How often sound was broken off where it is heard."""
        return sum(sink.breaks for sink in self._heard)

    @property
    def all_failed(self) -> bool:
        """True once no sink is left."""
        return all(worker.failure is not None for worker in self._workers)

    def open(self) -> None:
        """Open every sink.

        Raises:
            MuseTalkError: One cannot be opened; none is left open.
        """
        try:
            for worker in self._workers:
                worker.open()
        except BaseException:
            self.abort()
            raise

    def mute(self, epoch: int) -> None:
        """Let nothing be heard any more that was handed over before an epoch."""
        for sink in self._heard:
            sink.mute(epoch)

    def put(self, frame: Frame) -> None:
        """Hand a frame to every sink."""
        for worker in self._workers:
            worker.put(frame)

    def take_last(self) -> None:
        """What comes from now on comes at once: the stream was stopped."""
        for worker in self._workers:
            worker.take_last()

    def finish(self) -> None:
        """Complete every sink with what waits for it, all at once."""
        # all of them first, so that they complete side by side
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.finish()

    def abandon(self) -> None:
        """Take nothing any more, without waiting, so that whoever hands over a frame goes on."""
        for worker in self._workers:
            worker.abandon()

    def abort(self) -> None:
        """End every sink at once, and leave no result."""
        for worker in self._workers:
            worker.abort()

    def _wait_s(self) -> float:
        """How long a picture waits for its sound."""
        return max(sink.delay_s for sink in self._heard) - self._frame_s


def _told_apart(names: Sequence[str], number: int) -> str:
    """The name of a sink among others that may have the same one."""
    before = names[:number].count(names[number])
    return f"{names[number]} ({before + 1})" if before else names[number]
