"""What is left to be done of a batch that an earlier run has begun."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from musetalk_cli.errors import MuseTalkError
from musetalk_cli.run.batch.fingerprint import Fingerprints
from musetalk_cli.run.batch.job import BatchJob
from musetalk_cli.run.batch.results import is_finished, read_results


def plan(jobs: Sequence[BatchJob], results: Path, *, resume: bool) -> list[BatchJob]:
    """The jobs that are to be done: all, or those that `results` does not call finished.

    A job is finished where its inputs and settings have the same digest as then, and its output is there with
    the size and the digest that it had.

    Raises:
        InputError: The file of results cannot be read.
    """
    if not resume:
        return list(jobs)
    records, prints, open_jobs = read_results(results), Fingerprints(), []
    for job in jobs:
        record = records.get(str(job.output))
        try:
            finished = record is not None and is_finished(record, prints.key(job, prints.inputs(job)))
        except MuseTalkError:  # what cannot be read fails when it is done, and is told then
            finished = False
        if not finished:
            open_jobs.append(job)
    return open_jobs
