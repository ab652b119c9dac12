"""Which frame of a clip is shown, as it runs forward and backward and rests where nothing is said."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.timeline import Timeline, ceil_div, mirrored

SHORTEST_REST = Fraction(2, 5)
"""Seconds of neighbouring frames at rest in which silence stays."""


class MirroredLoop:
    """Which source frame is shown, frame by frame: forward, then backward, as `mirrored`.

    The source runs at its own rate. While it rests it stays within frames at rest, once it has come to the
    nearest ones; it turns at their ends as it does at those of the clip, and goes on from where it is.
    Nothing ever jumps.

    Args:
        count: Forward frames.
        timeline: Index arithmetic at the rate of what is shown.
        fps: Frames per second of the source.
        rest: Numbers of those at rest, ascending; without any, resting is no different.
        shortest: Fewest neighbouring frames at rest that are worth staying in.
    """

    def __init__(
        self, count: int, timeline: Timeline, fps: Fraction, rest: Sequence[int] = (), shortest: int = 2
    ) -> None:
        self._count = count
        self._timeline = timeline
        self._fps = fps
        self._runs = [run for run in _runs(rest) if len(run) >= shortest]
        self._frame = 0
        self._shown = -1
        self._step = -1

    @classmethod
    def of(cls, meta: AvatarMeta, timeline: Timeline) -> MirroredLoop:
        """That of an avatar."""
        shortest = ceil_div(SHORTEST_REST * meta.fps, 1)
        return cls(meta.frames, timeline, meta.fps, meta.rest_frames, shortest)

    def next(self, *, resting: bool) -> int:
        """The source frame of the next frame."""
        shown = self._timeline.source_frame(self._frame, self._fps)
        if resting and self._runs:
            for _ in range(self._shown, shown):
                self._rest()
        else:
            self._step = (self._step + shown - self._shown) % (2 * self._count)
        self._frame += 1
        self._shown = shown
        return mirrored(self._step, self._count)

    def _rest(self) -> None:
        """The next frame of the source: a step on, or a turn."""
        if self._step >= 0 and self._turns():
            self._step = 2 * self._count - 1 - self._step
        else:
            self._step = (self._step + 1) % (2 * self._count)

    def _turns(self) -> bool:
        """True at the end of a run, and where the nearest run lies behind."""
        here, forward = mirrored(self._step, self._count), self._step < self._count
        nearest = min(self._runs, key=lambda run: max(run[0] - here, here - run[-1], 0))
        if here in nearest:
            return here == (nearest[-1] if forward else nearest[0])
        return forward != (here < nearest[0])


def _runs(numbers: Sequence[int]) -> list[range]:
    """Ascending numbers as ranges of neighbours."""
    runs: list[range] = []
    for number in numbers:
        if runs and number == runs[-1].stop:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs
