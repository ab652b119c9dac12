"""What a machine needs for a hop and its frames, and so which hops it sustains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

BUSY_SHARE = 0.7
"""Share of the time that a live stream may need to compute: the rest is for what else the machine does."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What this machine needs, measured as an engine warmed up.

    Attributes:
        hop: Seconds to encode a hop.
        batches: Seconds to make a batch, by its size; of those sizes that were measured.
    """

    hop: float = 0.0
    batches: Mapping[int, float] = field(default_factory=dict)

    @property
    def first_frames(self) -> float:
        """Seconds from a hop to its first frames."""
        return self.hop + (self.batches[min(self.batches)] if self.batches else 0.0)

    def of(self, hop: Fraction, fps: Fraction) -> float:
        """Seconds to compute a hop of so many seconds at a frame rate, in batches no larger than it."""
        frames = float(hop * fps)
        fits = [size for size in self.batches if size <= frames] or list(self.batches)[:1]
        frame = min((self.batches[size] / size for size in fits), default=0.0)
        return self.hop + frame * frames

    def sustains(self, hop: Fraction, fps: Fraction) -> bool:
        """True where hops of so many seconds are computed in less time than they last, with some to spare."""
        return self.of(hop, fps) <= BUSY_SHARE * float(hop)
