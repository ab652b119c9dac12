"""How far a batch is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a batch is.

    Attributes:
        ended: Jobs that ended in this run.
        failed: Those of them that failed.
        jobs: All that are to be done in this run.
        work: Bytes of sound that were spoken, with what workers are at by their share.
        total: Bytes of sound to be spoken.
    """

    ended: int
    failed: int
    jobs: int
    work: int
    total: int


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        jobs: Jobs of the manifest.
        done: Videos made in this run.
        failed: Jobs that failed in this run.
        skipped: Jobs that an earlier run had finished.
        left: Jobs that were not begun or not finished: the run was interrupted, or no worker was left.
        seconds: How long it took.
        frames: Frames made.
        sound_s: Seconds of sound spoken.
        retried: How often a job was begun again since its worker was lost.
        workers: How many there were.
        device: What they computed on.
        results: The file of results.
        interrupted: True where the run was stopped early.
        failures: Of the failed jobs `place`, `output`, `error` and `hint`.
    """

    jobs: int
    done: int
    failed: int
    skipped: int
    left: int
    seconds: float
    frames: int
    sound_s: float
    retried: int
    workers: int
    device: str
    results: str
    interrupted: bool
    failures: list[dict[str, str | None]]

    @property
    def jobs_per_minute(self) -> float:
        """Videos made a minute."""
        return 60 * self.done / self.seconds if self.seconds else 0.0
