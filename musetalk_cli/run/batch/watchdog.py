"""Notices a worker that hangs: it lives, but nothing has come from it for too long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from musetalk_cli.errors import InputError
from musetalk_cli.timeline import parse_seconds

HANG_S = 600.0
"""Seconds without a new frame after which a worker hangs, where nobody says another number."""
WITHOUT_FRAMES = 6
"""As many times longer it may take to its first frame, and from its last one on: before them networks and an
avatar are loaded, and after them the video is completed and read."""
HANG_RANGE = (1, 86_400)


def parse_hang(text: str | None) -> float:
    """Read the seconds after which a worker hangs; None is what suits, and `off` is never.

    Raises:
        InputError: It is neither `off` nor a number in 1..86400.
    """
    if text is None:
        return HANG_S
    if text == "off":
        return math.inf
    hint = f"Write seconds, like {HANG_S:g}, or off for never."
    try:
        seconds = parse_seconds(text, "--hang-after")
    except InputError as error:
        raise InputError(error.message, hint) from None
    if not HANG_RANGE[0] <= seconds <= HANG_RANGE[1]:
        raise InputError(f"--hang-after {text} is outside {HANG_RANGE[0]}..{HANG_RANGE[1]} s.", hint)
    return float(seconds)


@dataclass(slots=True)
class _Watched:
    """What is known of a worker that has a job: when it was last heard of, and how far it was.

    Attributes:
        heard_at: When.
        frames: Frames it has made.
        in_frames: It has made some, and not all.
    """

    heard_at: float
    frames: int = 0
    in_frames: bool = False


class Watchdog:
    """Watches the workers that have a job; `now` is always seconds of the same monotonic clock.

    Args:
        hang_s: Seconds without a new frame after which a worker hangs.
    """

    def __init__(self, hang_s: float = HANG_S) -> None:
        self._hang_s = hang_s
        self._watched: dict[int, _Watched] = {}

    def begin(self, place: int, now: float) -> None:
        """The worker of a place was given a job."""
        self._watched[place] = _Watched(now)

    def advance(self, place: int, frames: int, total: int, now: float) -> None:
        """It has made so many frames of all; the same number again is no progress."""
        watched = self._watched.get(place)
        if watched is not None and frames > watched.frames:
            watched.frames, watched.heard_at, watched.in_frames = frames, now, frames < total

    def prepares(self, place: int, now: float) -> None:
        """It does what no frame is made of yet."""
        if (watched := self._watched.get(place)) is not None:
            watched.heard_at = now

    def end(self, place: int) -> None:
        """It has no job any more."""
        self._watched.pop(place, None)

    def take_hanging(self, now: float) -> dict[int, str]:
        """The places whose workers hang, each with what to say after `its worker`; none is told twice."""
        limits = {place: self._limit_s(watched) for place, watched in self._watched.items()}
        hanging = [place for place in limits if now - self._watched[place].heard_at > limits[place]]
        for place in hanging:
            del self._watched[place]
        return {place: f"hung: nothing came from it for {limits[place]:g} s." for place in hanging}

    def _limit_s(self, watched: _Watched) -> float:
        return self._hang_s if watched.in_frames else self._hang_s * WITHOUT_FRAMES
