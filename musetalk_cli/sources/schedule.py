"""The rule by which a live source stays on schedule: arithmetic only, no waiting and no sound."""

from __future__ import annotations

from musetalk_cli.timeline import ceil_div

SLACK_S = 0.04
"""How far sound may lie behind the clock when it comes; more is forgiven, so that no debt piles up."""
PATIENCE_S = 0.1
"""How far sound may lie behind the clock before silence takes its place."""
TICK_S = 0.02
"""How far silence may lie behind the clock once it has begun."""
LEAD_S = 0.25
"""How far sound may run ahead of the clock; what comes faster waits with whoever sends it."""
BLOCK_S = 0.05
"""The most that is taken or filled at once."""
PARTS = 100
"""A sample counts as so many parts."""
PARTS_AHEAD = 99
"""What it counts beyond half of `LEAD_S`, so that a clock 1 % fast is not throttled for ever."""


class Schedule:
    """How far the sound of a source reaches, beside the clock.

    Samples are counted in integers from a moment on, so that no rounding adds up, however long it lasts.

    Args:
        sample_rate: Samples per second.
        now: Monotonic seconds at which the sound begins.
    """

    def __init__(self, sample_rate: int, now: float) -> None:
        self._rate = sample_rate
        self._block = int(BLOCK_S * sample_rate)
        self._tick = int(TICK_S * sample_rate)
        self._patience = int(PATIENCE_S * sample_rate)
        self._origin = now
        self._counted = 0
        self._filling = False

    @property
    def covered(self) -> float:
        """The monotonic second up to which there was sound."""
        return self._origin + self._counted / (PARTS * self._rate)

    def take(self, samples: int, now: float) -> None:
        """Count sound that came at `now`; no samples at all forgive what is missing, and silence goes on."""
        ahead = self.covered - now > LEAD_S / 2
        self._counted += samples * (PARTS_AHEAD if ahead else PARTS)
        if self.covered < now - SLACK_S:
            self._origin, self._counted = now - SLACK_S, 0
        if samples:
            self._filling = False

    def silence(self, now: float) -> int:
        """Samples of silence to yield now that no sound came, at most a block; they count as yielded."""
        if self._until_silence(now) > 0:
            return 0
        self._filling = True
        samples = min(self._missing(now), self._block)
        self._counted += samples * PARTS
        return samples

    def room(self, now: float) -> int:
        """Samples that may be read now, at most a block; 0 while less than a tick fits."""
        fits = int((now + LEAD_S - self.covered) * self._rate)
        return min(fits, self._block) if fits >= self._tick else 0

    def wait(self, now: float) -> float:
        """Seconds to wait for sound before the schedule is asked again."""
        return min(TICK_S, max(0, self._until_silence(now)) / self._rate)

    def _missing(self, now: float) -> int:
        return int((now - self._origin) * self._rate) - ceil_div(self._counted, PARTS)

    def _until_silence(self, now: float) -> int:
        return (self._tick if self._filling else self._patience + 1) - self._missing(now)
