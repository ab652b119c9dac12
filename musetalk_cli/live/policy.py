"""What differs between a recording that is rendered and a stream that is watched, in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from musetalk_cli.config import WhenLate
from musetalk_cli.types import AudioSource, Delivery, Sink

BATCHES_BUFFERED = 2
"""Batches of frames that may wait for presentation, at the least."""
FRAMES_QUEUED = 4
"""Frames that may wait for a sink, at the least."""
BUFFERED_S = Fraction(1, 2)
"""Seconds of frames that may wait for their time, at the least: they bridge what else the machine does, and
silence in front of an utterance is not waited for."""
SHORTEST_LATE_S = 0.2
"""How late a frame may be at the least before it is held, however short the chunk."""
UNHEARD_S = 2
"""Seconds of a recording that may wait to be heard; the rest waits in its file."""


@dataclass(frozen=True, slots=True)
class Buffering:
    """What may wait in a stream.

    Attributes:
        ahead_s: Seconds of sound that was not heard yet; whoever sends more waits.
        frames: Finished frames that wait for their time.
    """

    ahead_s: float
    frames: int


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """How a stream keeps time, and what it does when it cannot.

    Attributes:
        paced: Frames wait in the jitter buffer until they are due; else each leaves as soon as it is made.
        late_after_s: Seconds after which a frame that was due is held instead of made; infinite makes all.
        own_time: Sound comes at its own time: it arrived when its source says so, and waiting for it is no
            work. Else it arrived when it was taken, and waiting for it is decoding.
        goes_on: Time goes on where no sound comes: silence takes its place.
        keeps_length: Sound that an interrupt discards on its way keeps its length, as silence. Else what
            comes next takes its place. Of sound without a time of its own nothing is discarded.
        sinks_are_waited_for: A full sink holds the stream up. Else it gets the picture before, and fails
            where it takes nothing for too long.
        all_or_nothing: The first failure ends the stream and leaves no result. Else what fails is closed, and
            what was made is completed.
    """

    paced: bool
    late_after_s: float
    own_time: bool
    goes_on: bool
    keeps_length: bool
    sinks_are_waited_for: bool
    all_or_nothing: bool

    @classmethod
    def of_recording(cls) -> StreamPolicy:
        """A file into a file, as fast as it goes."""
        return cls(
            paced=False,
            late_after_s=math.inf,
            own_time=False,
            goes_on=False,
            keeps_length=False,
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
        return cls.of_delivery(source.delivery, when_late, chunk, watched=any(sink.watched for sink in sinks))

    @classmethod
    def of_delivery(
        cls, delivery: Delivery, when_late: WhenLate, chunk: Fraction, *, watched: bool
    ) -> StreamPolicy:
        """The same, by how the sound is delivered and whether a sink is watched."""
        paced = watched or not delivery.waits
        holds = when_late == "drop" or (when_late == "auto" and not delivery.waits)
        return cls(
            paced=paced,
            late_after_s=_late_after(chunk) if holds else math.inf,
            own_time=delivery is not Delivery.RECORDED,
            goes_on=delivery is Delivery.LIVE,
            keeps_length=delivery is Delivery.PLAYED,
            sinks_are_waited_for=not paced or delivery.waits,
            all_or_nothing=False,
        )

    def for_chunk(self, chunk: Fraction) -> StreamPolicy:
        """The same with hops of another length."""
        return self if math.isinf(self.late_after_s) else replace(self, late_after_s=_late_after(chunk))

    @property
    def fills_batches(self) -> bool:
        """True where frames may wait for others: there is no result before all are made."""
        return self.all_or_nothing

    @property
    def speaks_live(self) -> bool:
        """True where somebody speaks to a stream that is watched as it goes, so that its delay counts."""
        return self.paced and self.own_time and not self.keeps_length

    def buffering(self, fps: Fraction, chunk: Fraction, batch: int, ahead: Fraction) -> Buffering:
        """What may wait: sound as long as asked for, and frames of a hop and a batch, or of two batches.

        Where frames wait for their time it is half a second of them and a batch at the least.

        Args:
            fps: Frames per second.
            chunk: Seconds of sound per hop.
            batch: Frames in the largest batch.
            ahead: Seconds of sound that may come ahead of its time.
        """
        frames = max(BATCHES_BUFFERED * batch, int(max(chunk, BUFFERED_S) * fps) + batch if self.paced else 0)
        return Buffering(float(ahead if self.own_time else UNHEARD_S), frames)

    def frames_queued(self, fps: Fraction) -> int:
        """Frames that may wait for a sink: a second of a stream that is watched."""
        return max(FRAMES_QUEUED, int(fps) if self.paced else 0)


def _late_after(chunk: Fraction) -> float:
    """Seconds after which a frame is held, where it is at all."""
    return max(float(chunk), SHORTEST_LATE_S)
