"""What a watcher of a stream sees, and how long after the sound was sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from musetalk_cli.bench.speech import Script
from musetalk_cli.clock import Clock
from musetalk_cli.sinks import NullSink
from musetalk_cli.timeline import SAMPLE_RATE
from musetalk_cli.types import Frame, StreamFormat

AHEAD_S = 0.2
"""Seconds before an utterance's first sound in which a face may begin to speak, and belong to it."""


PAUSE_S = 0.25
"""Seconds of digital silence after which the next sound begins an utterance; pauses are longer."""


class Shown(NamedTuple):
    """A frame that was shown.

    Attributes:
        pts: Seconds from the start of the stream.
        at: Monotonic seconds at which it was handed over.
        made: It shows a face that speaks.
    """

    pts: float
    at: float
    made: bool


class Screen(NullSink):
    """A sink that is watched, and remembers when it was given what.

    Args:
        clock: Where time comes from.
        begun: Called once frames may come.

    Attributes:
        shown: The frames, in their order.
        onsets: Seconds of the stream at which utterances begin, by the sound of the frames alone.
    """

    def __init__(self, clock: Clock, begun: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.name = "screen"
        self.watched = True
        self.shown: list[Shown] = []
        self.onsets: list[float] = []
        self._clock = clock
        self._begun = begun
        self._quiet_from = 0.0

    def open(self, stream: StreamFormat) -> None:
        """Frames may come."""
        super().open(stream)
        self._begun()

    def write(self, frame: Frame) -> None:
        """Take note of the frame."""
        self.shown.append(Shown(float(frame.pts), self._clock.now(), frame.fate.is_made))
        loud = np.flatnonzero(frame.request.audio[:, 0])
        if len(loud):
            first, last = ((self.samples + int(sample)) / SAMPLE_RATE for sample in (loud[0], loud[-1]))
            if not self.onsets or first - self._quiet_from > PAUSE_S:
                self.onsets.append(first)
            self._quiet_from = last
        super().write(frame)

    def answers(self, sent: Sequence[float]) -> list[float]:
        """Seconds from the sending of each utterance's first sound to the first frame that speaks it.

        Args:
            sent: Monotonic seconds at which the first sound of each utterance was sent.
        """
        made = [shown for shown in self.shown if shown.made]
        firsts = [
            next((shown.at for shown in made if first - AHEAD_S <= shown.pts < end - AHEAD_S), None)
            for first, end in self._bounds()
        ]
        return [at - begun for at, begun in zip(firsts, sent, strict=False) if at is not None]

    def delays(self, sent: Sequence[float], script: Script) -> list[float]:
        """How much later the frames of utterances were shown than their sound, played from its sending on."""
        return [
            shown.at - begun - (shown.pts - first)
            for (first, _), begun, sound in zip(self._bounds(), sent, script.utterances, strict=False)
            for shown in self.shown
            if first <= shown.pts < first + len(sound) / SAMPLE_RATE
        ]

    def _bounds(self) -> list[tuple[float, float]]:
        return list(zip(self.onsets, [*self.onsets[1:], float("inf")], strict=False))
