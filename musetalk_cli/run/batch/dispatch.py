"""Who does which job next: jobs with the same avatar go to the same worker, and a lost one is tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from musetalk_cli.run.batch.job import BatchJob

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
    """A job that is to be done.

    Attributes:
        job: The job.
        number: How often it was begun, with this one.
        begin_at: Monotonic seconds before which it is not begun.
    """

    job: BatchJob
    number: int = 1
    begin_at: float = 0.0


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
        self._kept: list[tuple[str, ...] | None] = [None] * places
        self._at: dict[int, Attempt] = {}
        self._losses = [0] * places
        self._rests_until = [0.0] * places

    @property
    def waiting(self) -> int:
        """Jobs that nobody has begun, or that are to be begun again."""
        return sum(map(len, self._groups.values()))

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

    def begin(self, place: int, now: float) -> Attempt | None:
        """The next job for a place, from now on at it; None where there is none yet."""
        rests = self._losses[place] >= MAX_LOSSES or self._rests_until[place] > now
        if rests or place in self._at:
            return None
        ready = {name: group for name, group in self._groups.items() if group[0].begin_at <= now}
        if not ready:
            return None
        kept = self._kept[place]
        name = kept if kept in ready else max(ready, key=self._need)
        assert name is not None  # noqa: S101 - `ready` has no None
        self._kept[place] = name
        self._at[place] = self._groups[name].popleft()
        if not self._groups[name]:  # so that a manifest with many avatars is not gone through at every turn
            del self._groups[name]
        return self._at[place]

    def _need(self, name: tuple[str, ...]) -> float:
        return len(self._groups[name]) / (1 + self._kept.count(name))

    def end(self, place: int) -> Attempt:
        """The job of a place has ended, well or not."""
        self._losses[place] = 0
        return self._at.pop(place)

    def lose(self, place: int, now: float) -> Attempt | None:
        """The worker of a place is gone; the job that is not tried again, if there is one.

        Else it is the first of its group, after a rest.
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
        self._groups.setdefault(attempt.job.group, deque()).appendleft(again)
        return None
