"""What differs between a recording that is rendered and a stream that is watched, in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from musetalk_cli.config import WhenLate
from musetalk_cli.types import AudioSource, Delivery, Sink

BATCHES_BUFFERED = 2
"""Batches of frames that may wait for presentation, at the least."""
FRAMES_QUEUED = 4
"""Frames that may wait for a sink, at the least."""


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """How a stream keeps time, and what it does when it cannot.

    Attributes:
        paced: Frames wait in the jitter buffer until they are due; else each leaves as soon as it is made.
        late_after_s: Seconds after which a frame that was due is held instead of made; infinite makes all.
        own_time: Sound comes at its own time: it arrived when its source says so, and waiting for it is no
            work. Else it arrived when it was taken, and waiting for it is decoding.
        time_goes_on: Sound that an interrupt discards on its way keeps its length, as silence. Else it waits
            with whoever sends it, and leaves no gap. Of sound without a time of its own nothing is discarded.
        sinks_are_waited_for: A full sink holds the stream up. Else it gets the picture before, and fails
            where it takes nothing for too long.
        all_or_nothing: The first failure ends the stream and leaves no result. Else what fails is closed, and
            what was made is completed.
    """

    paced: bool
    late_after_s: float
    own_time: bool
    time_goes_on: bool
    sinks_are_waited_for: bool
    all_or_nothing: bool

    @classmethod
    def of_recording(cls) -> StreamPolicy:
        """A file into a file, as fast as it goes."""
        return cls(
            paced=False,
            late_after_s=math.inf,
            own_time=False,
            time_goes_on=False,
            sinks_are_waited_for=True,
            all_or_nothing=True,
        )

    @classmethod
    def of_stream(
        cls, source: AudioSource, sinks: Iterable[Sink], when_late: WhenLate, chunk: Fraction
    ) -> StreamPolicy:
        """A stream that cannot be repeated.

        Frames are paced where the sound goes on by itself or somebody watches, and late ones are held where
        the sound does not wait, unless `when_late` says otherwise.

        Args:
            source: Where the sound comes from.
            sinks: Where the frames go.
            when_late: What the user asked for.
            chunk: Seconds of sound per hop, after which a frame is late.
        """
        waits = source.delivery is not Delivery.LIVE
        paced = not waits or any(sink.watched for sink in sinks)
        holds = when_late == "drop" or (when_late == "auto" and not waits)
        return cls(
            paced=paced,
            late_after_s=float(chunk) if holds else math.inf,
            own_time=source.delivery is not Delivery.RECORDED,
            time_goes_on=not waits,
            sinks_are_waited_for=not paced or waits,
            all_or_nothing=False,
        )

    @property
    def holds_late(self) -> bool:
        """True where late frames are held."""
        return math.isfinite(self.late_after_s)

    def frames_buffered(self, fps: Fraction, chunk: Fraction, batch: int) -> int:
        """Frames the jitter buffer holds: a hop's and a batch ahead of their time, or two batches."""
        return max(BATCHES_BUFFERED * batch, int(chunk * fps) + batch if self.paced else 0)

    def frames_queued(self, fps: Fraction) -> int:
        """Frames that may wait for a sink: a second of a stream that is watched."""
        return max(FRAMES_QUEUED, int(fps) if self.paced else 0)
