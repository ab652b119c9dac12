"""What a session is asked for when it is opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.part import WHOLE, Part
from musetalk_cli.types import Clip

Due = Callable[[int], "float | None"]
"""Monotonic seconds at which a frame is shown, as far as that is known."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionOptions:
    """How a session treats silence and time.

    Attributes:
        silence: The level that is silence; None makes every frame.
        idle: Pictures shown in silence, each of the avatar's size; None is the avatar's own frames.
        live: Frames are shown as they come: hops begin with each utterance, and the first batches are small.
        late_after_s: Seconds after which a frame that was due is held instead of made; infinite makes all.
        due: When a frame is shown; None is as soon as its hop is complete.
        fills_batches: Frames wait until their batch is full, since nobody waits for them. So batches, too,
            are functions of the sound alone, however fast it comes.
        part: Frames that are made; where not all are, `fills_batches` must be set.
    """

    silence: SilenceLevel | None = None
    idle: Clip | None = None
    live: bool = False
    late_after_s: float = math.inf
    due: Due | None = None
    fills_batches: bool = False
    part: Part = WHOLE
