"""What a machine needs for a hop and its frames, and so which hops it sustains; how full its batches were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from musetalk_cli.timeline import ceil_div

BUSY_SHARE = 0.8
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

    def batch(self, size: int) -> float:
        """Seconds to make a batch; between the sizes that were measured they grow evenly."""
        sizes = sorted(self.batches)
        return float(np.interp(size, sizes, [self.batches[each] for each in sizes])) if sizes else 0.0

    def of(self, hop: Fraction, fps: Fraction) -> float:
        """Seconds to compute a hop of so many seconds at a frame rate, its frames in one batch."""
        return self.hop + self.batch(ceil_div(hop * fps, 1))

    def sustains(self, hop: Fraction, fps: Fraction, besides: float = 0.0) -> bool:
        """True where hops of so many seconds are computed in less time than they last, with some to spare.

        Args:
            hop: Seconds.
            fps: Frames per second.
            besides: Share of the time that is needed for something else.
        """
        return self.of(hop, fps) <= (BUSY_SHARE - besides) * float(hop)

    def share(self, hop: Fraction, fps: Fraction) -> float:
        """Share of the time that one stream takes that speaks beside others, in hops of so many seconds.

        Their frames are made in batches of the size that costs least for each.
        """
        frame = min((seconds / size for size, seconds in self.batches.items()), default=0.0)
        return self.hop / float(hop) + frame * float(fps)


@dataclass(slots=True)
class Filling:
    """How full batches were.

    Attributes:
        batches: Batches that the networks made.
        frames: Frames in them.
        rows: Rows of them, with those that pad a batch to its size.
    """

    batches: int = 0
    frames: int = 0
    rows: int = 0
