"""Silence by level: how much of the speaking face each frame shows, decided by its sound alone."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.config import SilenceLevel
from musetalk_cli.timeline import ROWS_PER_SECOND, SAMPLES_PER_ROW, Timeline, ceil_div
from musetalk_cli.types import Samples


class Onset(NamedTuple):
    """Where an utterance begins: the gate opens.

    Attributes:
        number: Of the utterance in its stream, from 0.
        row: The first that is open.
    """

    number: int
    row: int


class Speech(NamedTuple):
    """What a frame shows of an utterance.

    Attributes:
        weight: The share of the speaking face, 0..1.
        onset: The utterance that it is of, to the end of its cross-fade; None where the weight is 0.
    """

    weight: float
    onset: Onset | None


class VoiceGate:
    """Opens and closes with the level of a stream at 16 kHz, row by row of the encoder (20 ms).

    Args:
        level: Where silence begins and ends.
    """

    def __init__(self, level: SilenceLevel) -> None:
        self._opens = 10 ** (level.opens_db / 20)
        self._closes = 10 ** ((level.opens_db - level.hysteresis_db) / 20)
        self._hang_over = round(level.hang_over_s * ROWS_PER_SECOND)
        self._rest: Samples = np.zeros(0, np.float32)
        self._open_rows: deque[tuple[int, Onset]] = deque()
        self._heard = 0
        self._onset = Onset(-1, 0)
        self._open_for = 0

    def listen(self, samples: Samples) -> None:
        """Append float32 `[n]` at 16 kHz."""
        held = np.concatenate([self._rest, samples])
        rows = len(held) // SAMPLES_PER_ROW
        whole = held[: rows * SAMPLES_PER_ROW].reshape(rows, SAMPLES_PER_ROW)
        self._rest = held[rows * SAMPLES_PER_ROW :].copy()
        for level in _level(whole):
            was_open = self._open_for > 0
            if self._step(float(level)):
                if not was_open:
                    self._onset = Onset(self._onset.number + 1, self._heard)
                self._open_rows.append((self._heard, self._onset))
            self._heard += 1

    def _step(self, level: float) -> bool:
        """Whether the next row is open: those of the hang-over are."""
        if level >= (self._closes if self._open_for else self._opens):
            self._open_for = self._hang_over + 1
        elif self._open_for:
            self._open_for -= 1
        return self._open_for > 0

    @property
    def is_open(self) -> bool:
        """True where the row heard last is open, or what was heard of the next one is loud enough for it."""
        return self._open_for > 0 or (len(self._rest) > 0 and bool(_level(self._rest) >= self._opens))

    def close(self) -> None:
        """End the utterance here, without its hang-over: what comes next was put in, and is no part of it."""
        if self._open_for and len(self._rest):
            self._open_rows.append((self._heard, self._onset))
        # what it said counts for the utterance that ends; louder than silence, it would begin another
        self._rest = np.zeros_like(self._rest)
        self._open_for = 0

    def mute(self) -> None:
        """Take all that was heard for silence."""
        self._rest = np.zeros_like(self._rest)
        self._open_rows.clear()
        self._open_for = 0

    def onset(self, first: int, last: int) -> Onset | None:
        """The utterance of the first open row of `[first, last)`; None where none is open.

        One never heard is not. To be called in ascending order.
        """
        while self._open_rows and self._open_rows[0][0] < first:
            self._open_rows.popleft()
        if self._open_rows and self._open_rows[0][0] < last:
            return self._open_rows[0][1]
        return None


def _level(samples: Samples) -> NDArray[np.float64]:
    """RMS of the last axis, full scale at 1.0."""
    level: NDArray[np.float64] = np.sqrt(np.mean(np.square(samples, dtype=np.float64), axis=-1))
    return level


class Fade:
    """How much of the speaking face shows, frame by frame, with a cross-fade at each change.

    A frame speaks where the gate is open in its own time, or in the sound after it that it waited for anyway:
    so the face is there when the first word is.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        level: Where silence begins and ends; None takes everything for speech, of one utterance.
    """

    FADE_S = Fraction(12, 100)

    def __init__(self, timeline: Timeline, level: SilenceLevel | None) -> None:
        self._timeline = timeline
        self._gate = None if level is None else VoiceGate(level)
        self._steps = max(1, int(self.FADE_S * timeline.fps))
        self._step = self._steps if level is None else 0
        self._onset: Onset | None = None

    def listen(self, samples: Samples) -> None:
        """Append float32 `[n]` at 16 kHz."""
        if self._gate is not None:
            self._gate.listen(samples)

    @property
    def is_speaking(self) -> bool:
        """True where the sound heard last is of an utterance."""
        return self._gate is None or self._gate.is_open

    def close(self) -> None:
        """End the utterance: what is listened to next is silence in the place of sound that did not come."""
        if self._gate is not None:
            self._gate.close()

    def mute(self) -> None:
        """Take all that was heard for silence, and start from the idle picture."""
        self._step = 0
        if self._gate is not None:
            self._gate.mute()

    def speech(self, frame: int) -> Speech:
        """What the next frame shows of an utterance; the weight changes by one step a frame."""
        first = self._timeline.frame_start(frame) // SAMPLES_PER_ROW
        end = ceil_div(self._timeline.frame_start(frame + 1), SAMPLES_PER_ROW)
        last = max(self._timeline.last_row(frame), end)
        onset = Onset(0, 0) if self._gate is None else self._gate.onset(first, last)
        if onset is not None:
            self._step, self._onset = min(self._step + 1, self._steps), onset
        else:
            self._step = max(self._step - 1, 0)
        return Speech(self._step / self._steps, self._onset if self._step else None)
