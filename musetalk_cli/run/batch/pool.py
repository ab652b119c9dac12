"""A pool of workers, as whoever gives out the jobs sees it: places, each with one worker and one job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from musetalk_cli.run.batch.job import Json

LOST = "lost"
"""Said of a worker that cannot go on, for no fault of its job: the device failed, or the memory."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The worker of a place has ended its job, and takes another one.

    Attributes:
        place: Number of the place, from 0.
        answer: What became of the job, as `work.do_job` tells it.
    """

    place: int
    answer: Json


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of a place is gone, with the job that it had.

    Attributes:
        place: Number of the place.
        reason: What is known of it, to stand after `its worker`.
    """

    place: int
    reason: str


@dataclass(frozen=True, slots=True)
class Advanced:
    """The worker of a place goes on with its job.

    Attributes:
        place: Number of the place.
        frames: Frames made.
        total: All there will be.
    """

    place: int
    frames: int
    total: int


@dataclass(frozen=True, slots=True)
class Prepares:
    """The worker of a place does what no frame is made of yet: it prepares a face, or waits for who does.

    Attributes:
        place: Number of the place.
    """

    place: int


@dataclass(frozen=True, slots=True)
class Said:
    """The worker of a place has something to say that is no error.

    Attributes:
        place: Number of the place.
        text: One line.
    """

    place: int
    text: str


Event = Ended | Lost | Advanced | Prepares | Said


class Pool(Protocol):
    """Workers that keep what they load.

    Attributes:
        places: How many there are; fixed.
        device: What they compute on, in words.
    """

    places: int
    device: str

    def ready(self, place: int) -> bool:
        """True where a job may be given to a place that has none."""

    def begin(self, place: int, task: Json) -> None:
        """Give a job to a place that is ready and has none."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened since; waits for the first of it, and no longer than this."""

    def end(self, place: int, reason: str) -> None:
        """End the worker of a place, which is then lost for that reason, to stand after `its worker`."""

    def close(self) -> None:
        """End the workers; what one is still at is ended too, and leaves nothing half-written."""
