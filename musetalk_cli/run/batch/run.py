"""A batch from its jobs to its results: what is done is skipped, the rest given out, and each end kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from musetalk_cli import __version__
from musetalk_cli.errors import MuseTalkError, OutputError
from musetalk_cli.live.control import ControlHandle
from musetalk_cli.run.batch.dispatch import Attempt, Dispatch, Retry
from musetalk_cli.run.batch.fingerprint import Fingerprints
from musetalk_cli.run.batch.job import BatchJob, Json
from musetalk_cli.run.batch.pool import Advanced, Ended, Event, Lost, Pool, Prepares, Said
from musetalk_cli.run.batch.report import BatchReport, Standing
from musetalk_cli.run.batch.results import DONE, Results, failure
from musetalk_cli.run.batch.split import Splits
from musetalk_cli.run.batch.watchdog import Watchdog
from musetalk_cli.text import PROGRESS

log = logging.getLogger(__name__)

POLL_S = 0.1
"""How soon an interrupt, and the end of a rest, is noticed."""
MAX_SAID = 1000
"""Different lines of workers that are passed on."""


def run_batch(
    jobs: Sequence[BatchJob],
    make_pool: Callable[[], Pool],
    results: Path,
    *,
    skipped: int = 0,
    retry: Retry | None = None,
    watchdog: Watchdog | None = None,
    split_over: float | None = None,
    handle: ControlHandle | None = None,
    progress: Callable[[Standing], None] | None = None,
) -> BatchReport:
    """Do the jobs; each that ends, well or not, gets one line in the file of results.

    Args:
        jobs: What is to be done.
        make_pool: Makes the workers.
        results: The file of results.
        skipped: Jobs that were finished before, for the report.
        retry: What is done about lost workers.
        watchdog: Notices workers that hang; they are ended, and so lost.
        split_over: Seconds over which a sound is split where workers would rest; None is never.
        handle: Where its stop is set, no job is begun any more, and those that are begun are finished.
        progress: Told when something happens.

    Raises:
        MuseTalkError: The file of results cannot be written or is an output, or there can be no worker.
        KeyboardInterrupt: A second interrupt; what workers were at is gone, and what was made is there.
    """
    handle = handle or ControlHandle()
    if any(job.output.name == results.name and job.output.resolve() == results.resolve() for job in jobs):
        raise OutputError(f"--results {results} is an output of a job too.", "Name another file.")
    for folder in {job.output.parent for job in jobs}:
        folder.mkdir(parents=True, exist_ok=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    # the workers end before what they write is removed
    with Results(results) as file, closing(Splits(split_over)) as splits, closing(make_pool()) as pool:
        dispatch = Dispatch(jobs, pool.places, retry)
        batch = _Batch(jobs, pool, file, dispatch, splits, watchdog or Watchdog(), handle, progress)
        batch.run()
        return batch.report(len(jobs) + skipped, skipped, results)


@dataclass(slots=True)
class _Sums:
    """What a run adds up."""

    done: int = 0
    frames: int = 0
    sound_s: float = 0.0
    retried: int = 0
    work: int = 0
    failures: list[dict[str, str | None]] = field(default_factory=list)


class _Batch:
    """One run: the only thread that gives out jobs and writes results."""

    def __init__(
        self,
        jobs: Sequence[BatchJob],
        pool: Pool,
        file: Results,
        dispatch: Dispatch,
        splits: Splits,
        watchdog: Watchdog,
        handle: ControlHandle,
        progress: Callable[[Standing], None] | None,
    ) -> None:
        self._pool = pool
        self._file = file
        self._handle = handle
        self._progress = progress or (lambda _: None)
        self._dispatch = dispatch
        self._splits = splits
        self._watchdog = watchdog
        self._prints = Fingerprints()
        self._inputs: dict[int, dict[str, str]] = {}
        self._sizes = {job.output: _size(job.audio) for job in jobs}
        self._total = sum(self._sizes.values())
        self._shares: dict[int, float] = {}
        self._said: set[str] = set()
        self._sums = _Sums()
        self._started = time.monotonic()

    def run(self) -> None:
        """Until all jobs have ended, or no more may be begun."""
        self._handle.bind(self)
        self._tell()
        told = False
        while self._dispatch.busy or (self._dispatch.usable and self._has_more):
            if self._stopped and not told:
                told = True
                log.log(PROGRESS, "Stopping: what is begun is finished first (%d).", self._dispatch.busy)
            self._give()
            for event in self._pool.wait(POLL_S):
                self._take(event)
            for place, reason in self._watchdog.take_hanging(time.monotonic()).items():
                self._pool.end(place, reason)

    @property
    def _has_more(self) -> bool:
        """True where something is to be begun; once it was stopped, a piece of a job that is begun."""
        return (self._dispatch.pieces if self._stopped else self._dispatch.waiting) > 0

    @property
    def _stopped(self) -> bool:
        return self._handle.stop.is_set()

    def interrupt(self) -> None:
        """Nothing: what is said in a video of a batch is not taken back."""

    def _give(self) -> None:
        """Give every place that is free its next job."""
        for place in range(self._pool.places):
            if not self._pool.ready(place):
                continue
            now = time.monotonic()
            attempt = self._dispatch.begin(place, now, only_pieces=self._stopped)
            if attempt is not None:
                self._begin(place, self._splits.begin(attempt, partial(self._dispatch.sharers, now)))

    def _begin(self, place: int, attempt: Attempt) -> None:
        self._dispatch.take_up(place, attempt)
        try:
            inputs = self._prints.inputs(attempt.job)
            task = self._splits.task(attempt, inputs)
        except MuseTalkError as error:
            self._dispatch.end(place)
            self._come_to(place, attempt, {}, failure(error.message, error.hint))
            return
        self._inputs[place] = inputs
        self._pool.begin(place, task)
        self._watchdog.begin(place, time.monotonic())

    def _take(self, event: Event) -> None:
        if isinstance(event, Advanced):
            self._shares[event.place] = event.frames / max(1, event.total)
            self._watchdog.advance(event.place, event.frames, event.total, time.monotonic())
        elif isinstance(event, Prepares):
            self._watchdog.prepares(event.place, time.monotonic())
        elif isinstance(event, Said):
            self._pass_on(event)
        elif isinstance(event, Ended):
            self._shares.pop(event.place, None)
            self._watchdog.end(event.place)
            inputs, attempt = self._inputs.pop(event.place), self._dispatch.end(event.place)
            self._come_to(event.place, attempt, inputs, event.answer)
        else:
            self._lose(event)
        self._tell()

    def _pass_on(self, event: Said) -> None:
        """A line of a worker, where no other one has said it."""
        if event.text not in self._said and len(self._said) < MAX_SAID:
            self._said.add(event.text)
            log.warning("%s", event.text)

    def _lose(self, event: Lost) -> None:
        self._shares.pop(event.place, None)
        self._watchdog.end(event.place)
        inputs = self._inputs.pop(event.place, {})
        attempt = self._dispatch.at(event.place)
        given_up = self._dispatch.lose(event.place, time.monotonic())
        if given_up is not None:
            lost, hint = given_up.number, "Where memory is short, take fewer --workers."
            tries = f"{lost} workers were lost with it; the last one" if lost > 1 else "its worker"
            self._come_to(event.place, given_up, inputs, failure(f"{tries} {event.reason}", hint))
        elif attempt is not None:
            is_over = self._splits.has_failed(attempt.job)
            if attempt.piece is not None:
                self._splits.lose(attempt)
                self._wind_up(attempt, {})
            self._sums.retried += not is_over
            again = "" if is_over else " It is tried again."
            log.warning("%s: its worker %s%s", attempt.job.output, event.reason, again)
        else:
            log.warning("A worker without a job %s", event.reason)

    def _come_to(self, place: int, attempt: Attempt, inputs: dict[str, str], answer: Json) -> None:
        """A job has ended, or a piece of one, after which others are to be done."""
        if attempt.piece is None:
            self._end(attempt, inputs, answer)
            return
        more = self._splits.end(attempt, answer)
        if more and more[0].piece is None:  # not split: whoever found that out does it
            self._begin(place, more[0])
            return
        self._dispatch.add(more)
        self._wind_up(attempt, answer)

    def _wind_up(self, attempt: Attempt, answer: Json) -> None:
        if self._splits.has_failed(attempt.job):
            self._dispatch.drop(attempt.job)
        if (ended := self._splits.conclude(attempt, answer)) is not None:
            self._end(*ended)

    def _end(self, attempt: Attempt, inputs: dict[str, str], answer: Json) -> None:
        """Keep how a job ended, on the disk before anything else."""
        job, sums = attempt.job, self._sums
        self._file.append(
            {
                "output": str(job.output),
                "state": answer["state"],
                "avatar": job.avatar,
                "source": None if job.source is None else str(job.source),
                "audio": str(job.audio),
                "model": job.run.model,
                "key": self._prints.key(job, inputs),
                "inputs": inputs,
                "settings": job.settings(),
                "tries": attempt.number,
                **{name: value for name, value in answer.items() if name != "state"},
                "ended": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "version": __version__,
            }
        )
        sums.work += self._sizes[job.output]
        if answer["state"] == DONE:
            figures: dict[str, Any] = answer["figures"]
            sums.done += 1
            sums.frames += figures["frames"]
            sums.sound_s += figures["duration_s"]
            return
        which = {"place": job.place, "output": str(job.output)}
        sums.failures.append({**which, "error": answer["error"], "hint": answer["hint"]})
        log.warning("%s: %s", job.output, answer["error"])

    def _tell(self) -> None:
        sums = self._sums
        failed = len(sums.failures)
        now = sums.work
        now += sum(int(share * self._sizes[output]) for output, share in self._splits.shares.items())
        for place, share in self._shares.items():
            if (attempt := self._dispatch.at(place)) is not None:
                part = 1.0 if attempt.piece is None else attempt.piece.share
                now += int(share * part * self._sizes[attempt.job.output])
        self._progress(Standing(sums.done + failed, failed, len(self._sizes), now, self._total))

    def report(self, jobs: int, skipped: int, results: Path) -> BatchReport:
        """What became of it."""
        sums, failed = self._sums, len(self._sums.failures)
        return BatchReport(
            jobs=jobs,
            done=sums.done,
            failed=failed,
            skipped=skipped,
            left=jobs - skipped - sums.done - failed,
            seconds=time.monotonic() - self._started,
            frames=sums.frames,
            sound_s=sums.sound_s,
            retried=sums.retried,
            workers=self._pool.places,
            device=self._pool.device,
            results=str(results),
            interrupted=self._stopped,
            failures=sums.failures,
        )


def _size(path: Path) -> int:
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1
