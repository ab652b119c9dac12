"""What a watcher of a stream sees, and how long after the sound was sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from musetalk_cli.bench.speech import Script
from musetalk_cli.clock import Clock
from musetalk_cli.sinks import NullSink
from musetalk_cli.timeline import SAMPLE_RATE
from musetalk_cli.types import Frame, Samples, StreamFormat

AHEAD_S = 0.2
"""Seconds before an utterance's first sound in which a face may begin to speak, and belong to it."""


_NOTHING: Samples = np.zeros(0, np.float32)


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


class Ear:
    """Finds the utterances of a script in the sound of a stream, by that sound alone.

    Args:
        script: What is said.

    Attributes:
        onsets: Seconds of the stream at which utterances begin.
        whole: Utterances that were heard as they were sent, to their end and with nothing between.
    """

    def __init__(self, script: Script) -> None:
        self.onsets: list[float] = []
        self.whole = 0
        self._script = script
        self._samples = 0
        self._silent = SAMPLE_RATE * script.pause_s
        self._expected = _NOTHING

    def hear(self, sound: Samples) -> None:
        """Take the next float32 `[n]` at 16 kHz, no longer than half a pause."""
        loud = np.flatnonzero(sound)
        first = int(loud[0]) if len(loud) else len(sound)
        begins = len(loud) > 0 and self._silent + first >= SAMPLE_RATE * self._script.pause_s / 2
        if begins:
            self._begin(self._samples + first)
        if len(self._expected):
            self._compare(sound[first:] if begins else sound)
        self._silent = len(sound) - 1 - int(loud[-1]) if len(loud) else self._silent + len(sound)
        self._samples += len(sound)

    def _begin(self, sample: int) -> None:
        number = len(self.onsets)
        self.onsets.append(sample / SAMPLE_RATE)
        if number < len(self._script.utterances):
            sound = self._script.utterances[number][:, 0]
            self._expected = sound[np.flatnonzero(sound)[0] :]

    def _compare(self, sound: Samples) -> None:
        heard = sound[: len(self._expected)]
        if not np.array_equal(heard, self._expected[: len(heard)]):
            self._expected = _NOTHING
            return
        self._expected = self._expected[len(heard) :]
        self.whole += not len(self._expected)


class Screen(NullSink):
    """A sink that is watched, and remembers what it was given when.

    Args:
        clock: Where time comes from.
        script: What is said.
        begun: Called once frames may come.

    Attributes:
        shown: The frames, in their order.
        ear: What was heard with them.
    """

    def __init__(self, clock: Clock, script: Script, begun: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.name = "screen"
        self.watched = True
        self.shown: list[Shown] = []
        self.ear = Ear(script)
        self._script = script
        self._clock = clock
        self._begun = begun

    def open(self, stream: StreamFormat) -> None:
        """Frames may come."""
        super().open(stream)
        self._begun()

    def write(self, frame: Frame) -> None:
        """Take note of the frame."""
        self.shown.append(Shown(float(frame.pts), self._clock.now(), frame.fate.is_made))
        self.ear.hear(frame.request.audio[:, 0])
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

    def delays(self, sent: Sequence[float]) -> list[float]:
        """How much later the frames of utterances were shown than their sound, played from its sending on."""
        return [
            shown.at - begun - (shown.pts - first)
            for (first, _), begun, sound in zip(self._bounds(), sent, self._script.utterances, strict=False)
            for shown in self.shown
            if first <= shown.pts < first + len(sound) / SAMPLE_RATE
        ]

    def _bounds(self) -> list[tuple[float, float]]:
        return list(zip(self.ear.onsets, [*self.ear.onsets[1:], math.inf], strict=False))
