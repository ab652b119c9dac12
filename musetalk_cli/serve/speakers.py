"""Who may speak at once: as many as the machine sustains, so that none of them stutters.

A session in silence costs no model work, so what is counted are speakers and not sessions. Who begins to
speak while all places are taken is refused, for that utterance, and told so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from musetalk_cli.clock import Clock
from musetalk_cli.config import SilenceLevel
from musetalk_cli.serve.refusals import NotFoundError, RefusedError
from musetalk_cli.types import Frame, Samples

WINDOW_S = 0.02
"""Over how much time a level is taken, as the voice gate does."""
PAUSE_S = 1.0
"""How long a session is silent before another one may take its place."""
AHEAD_S = 0.5
"""Sound that waits, in seconds, from which on it came ahead of its time: it is still to be spoken."""


class Speakers:
    """Places of speakers; safe to use from any thread.

    Args:
        most: How many may speak at once.

    Attributes:
        most: How many may speak at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: set[object] = set()
        self._lock = threading.Lock()

    @property
    def now(self) -> int:
        """How many speak."""
        return len(self._taken)

    def claim(self, who: object) -> bool:
        """Take a place, or keep it; False where there is none."""
        with self._lock:
            if who not in self._taken and len(self._taken) >= self.most:
                return False
            self._taken.add(who)
            return True

    def release(self, who: object) -> None:
        """Give the place back, if it has one."""
        with self._lock:
            self._taken.discard(who)

    def refusal(self) -> RefusedError:
        """Why there is no place."""
        speakers = "1 speaker" if self.most == 1 else f"{self.most} speakers"
        return RefusedError(
            f"All places are taken: this machine sustains {speakers} at once.", "Try again in some seconds."
        )


class Turn:
    """One session's claim to speak, taken where its sound becomes loud and given back after a pause.

    Sound is judged as it comes, so a turn begins before anything is made of it.

    Args:
        speakers: Where places are claimed.
        level: Where silence begins; None is nowhere, and the claim lasts.
        clock: Where time comes from.
        waiting_s: How many seconds of the session's sound wait to be heard.

    Attributes:
        taken: How often a place was taken.
        refused: How often it was refused.
    """

    def __init__(
        self, speakers: Speakers, level: SilenceLevel | None, clock: Clock, waiting_s: Callable[[], float]
    ) -> None:
        self._speakers = speakers
        self._level = 0.0 if level is None else 10 ** (level.opens_db / 20)
        self._clock = clock
        self._waiting_s = waiting_s
        self._lock = threading.Lock()
        self.taken = self.refused = 0
        self._has_place = False
        self._is_refused = False
        self._ended = False
        self._loud_at = clock.now()
        self._shown_at = clock.now()

    def admit(self, samples: Samples, sample_rate: int, *, ends: bool) -> bool:
        """Say whether some sound may be spoken; False is meant for all up to a pause, or the segment's end.

        Args:
            samples: float32 `[n, channels]`.
            sample_rate: Samples per second.
            ends: A segment ends with it.
        """
        is_loud = loudest(samples, sample_rate) >= self._level
        now = self._clock.now()
        with self._lock:
            if not is_loud:
                over = ends or now - self._loud_at > PAUSE_S
                was_refused, self._is_refused = self._is_refused, self._is_refused and not over
                return not (was_refused and ends)
            # a pause is also where nothing comes
            self._is_refused = self._is_refused and now - self._loud_at <= PAUSE_S
            self._loud_at = now
            if not self._is_refused and not self._has_place and not self._ended:
                self._has_place = self._speakers.claim(self)
                self._is_refused = not self._has_place
                self.taken += self._has_place
                self.refused += self._is_refused
            admitted = not self._is_refused
            self._is_refused = self._is_refused and not ends
            return admitted

    def check(self) -> None:
        """Refuse what `claim` would refuse now.

        Raises:
            RefusedError: All are taken.
        """
        if not self._has_place and self._speakers.now >= self._speakers.most:
            raise self._speakers.refusal()

    def claim(self) -> bool:
        """Take a place before there is sound; False where it is there already.

        Raises:
            NotFoundError: The session has ended.
            RefusedError: All are taken.
        """
        with self._lock:
            if self._ended:
                raise NotFoundError("The session has ended.", "Begin a new one.")
            if not self._speakers.claim(self):
                raise self._speakers.refusal()
            is_new = not self._has_place
            self._has_place, self._is_refused, self._loud_at = True, False, self._clock.now()
            self.taken += 1
            return is_new

    def shown(self, frame: Frame) -> None:
        """A frame was shown; in a pause the place is given back."""
        now = self._clock.now()
        with self._lock:
            if not self._has_place or not self._level:
                return
            if frame.request.utterance is not None:
                self._shown_at = now
            silent_since = max(self._loud_at, self._shown_at)
            if now - silent_since > PAUSE_S and self._waiting_s() < AHEAD_S:
                self._give_back()

    def interrupt(self) -> None:
        """What was said is cut off: a refusal ends with it, and what comes next may ask again."""
        with self._lock:
            self._is_refused = False

    def give_back(self) -> None:
        """Give the place back: there is no sound after all."""
        with self._lock:
            self._give_back()

    def end(self) -> None:
        """Give the place back, and take none any more."""
        with self._lock:
            self._ended = True
            self._give_back()

    def _give_back(self) -> None:
        self._has_place = False
        self._speakers.release(self)


def loudest(samples: Samples, sample_rate: int) -> float:
    """The highest level (RMS over 20 ms, full scale at 1.0) in float32 `[n, channels]`, 0.0 of nothing."""
    length = max(1, round(WINDOW_S * sample_rate))
    power = np.square(samples, dtype=np.float64).mean(axis=1)
    if not len(power):
        return 0.0
    starts = np.arange(0, len(power), length)
    counts = np.minimum(length, len(power) - starts)
    # a last window that is short counts as a full one: what it lacks is still to come
    short = np.where(counts < length, length if len(starts) > 1 else counts, counts)
    return float(np.sqrt((np.add.reduceat(power, starts) / short).max()))
