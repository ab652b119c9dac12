"""Who does which job next: jobs with the same avatar go to the same worker, and a lost one is tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.batch.piece import Piece
from musetalk_cli.timeline import ceil_div

MAX_LOSSES = 3
"""Workers that a place may lose one after the other before nothing more is tried there."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What is done about a worker that is lost with its job.

    Attributes:
        tries: How often a job is begun at most.
        first_s: Seconds before it is begun again, and before its place is used again; doubled with each loss.
    """

    tries: int = 2
    first_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A job, or a piece of one, that is to be done.

    Attributes:
        job: The job.
        number: How often it was begun, with this one.
        begin_at: Monotonic seconds before which it is not begun.
        piece: What is done of the job; None is all of it.
    """

    job: BatchJob
    number: int = 1
    begin_at: float = 0.0
    piece: Piece | None = None


class Dispatch:
    """Gives jobs to places.

    A place goes on with the avatar it has. One that has none takes that with the most jobs for each place
    that works at it, so that avatars are spread before they are shared.

    Args:
        jobs: What is to be done.
        places: How many workers there are.
        retry: What is done about lost ones.
    """

    def __init__(self, jobs: Sequence[BatchJob], places: int, retry: Retry | None = None) -> None:
        self._retry = retry or Retry()
        self._groups: dict[tuple[str, ...], deque[Attempt]] = {}
        for job in jobs:
            self._groups.setdefault(job.group, deque()).append(Attempt(job))
        self._pieces: list[Attempt] = []
        self._kept: list[tuple[str, ...] | None] = [None] * places
        self._at: dict[int, Attempt] = {}
        self._losses = [0] * places
        self._rests_until = [0.0] * places

    @property
    def waiting(self) -> int:
        """Jobs that nobody has begun, or that are to be begun again, and pieces of jobs."""
        return len(self._pieces) + sum(map(len, self._groups.values()))

    @property
    def pieces(self) -> int:
        """Pieces of jobs that are begun among them."""
        return len(self._pieces)

    @property
    def busy(self) -> int:
        """Jobs that somebody is at."""
        return len(self._at)

    @property
    def usable(self) -> bool:
        """True where a place is left that did not lose too many workers."""
        return any(losses < MAX_LOSSES for losses in self._losses)

    def at(self, place: int) -> Attempt | None:
        """What a place is at."""
        return self._at.get(place)

    def begin(self, place: int, now: float, *, only_pieces: bool = False) -> Attempt | None:
        """The next job for a place, from now on at it; None where there is none yet.

        Args:
            place: Number of the place.
            now: Monotonic seconds.
            only_pieces: No job is begun any more, and those that are begun are finished.
        """
        if self._rests(place, now) or place in self._at:
            return None
        pieces = [piece for piece in self._pieces if piece.begin_at <= now]
        if pieces:  # before other jobs, since what is begun is finished first
            own = (piece for piece in pieces if piece.job.group == self._kept[place])
            self._at[place] = next(own, pieces[0])
            self._pieces.remove(self._at[place])
            self._kept[place] = self._at[place].job.group
            return self._at[place]
        ready = {name: group for name, group in self._groups.items() if group[0].begin_at <= now}
        if not ready or only_pieces:
            return None
        kept = self._kept[place]
        name = kept if kept in ready else max(ready, key=self._need)
        assert name is not None  # noqa: S101 - `ready` has no None
        self._kept[place] = name
        self._at[place] = self._groups[name].popleft()
        if not self._groups[name]:  # so that a manifest with many avatars is not gone through at every turn
            del self._groups[name]
        return self._at[place]

    def _rests(self, place: int, now: float) -> bool:
        return self._losses[place] >= MAX_LOSSES or self._rests_until[place] > now

    def sharers(self, now: float) -> int:
        """Places that can share a job that was just begun, while there are not enough other jobs for them.

        The last job is for all places: those that are at work will be free with nothing else to do.
        """
        others = sum(map(len, self._groups.values()))
        if not others:
            return sum(losses < MAX_LOSSES for losses in self._losses)
        places = range(len(self._losses))
        idle = sum(place not in self._at and not self._rests(place, now) for place in places)
        return ceil_div(1 + idle, 1 + others)

    def take_up(self, place: int, attempt: Attempt) -> None:
        """Let a place that has begun a job do this in place of it."""
        self._at[place] = attempt

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Add pieces of a job that was begun."""
        self._pieces += attempts

    def drop(self, job: BatchJob) -> None:
        """Forget the pieces of a job that nobody is at."""
        self._pieces = [piece for piece in self._pieces if piece.job is not job]

    def _need(self, name: tuple[str, ...]) -> float:
        return len(self._groups[name]) / (1 + self._kept.count(name))

    def end(self, place: int) -> Attempt:
        """The job of a place has ended, well or not."""
        self._losses[place] = 0
        return self._at.pop(place)

    def lose(self, place: int, now: float) -> Attempt | None:
        """The worker of a place is gone; the job that is not tried again, if there is one.

        Else it is the first of its group, or a piece the first of all, after a rest.
        """
        rest_s = self._retry.first_s * 2 ** self._losses[place]
        self._losses[place] += 1
        self._kept[place] = None
        self._rests_until[place] = now + rest_s
        attempt = self._at.pop(place, None)
        if attempt is None:
            return None
        if attempt.number >= self._retry.tries:
            return attempt
        again = replace(attempt, number=attempt.number + 1, begin_at=now + rest_s)
        if attempt.piece is not None:
            self._pieces.insert(0, again)
        else:
            self._groups.setdefault(attempt.job.group, deque()).appendleft(again)
        return None
