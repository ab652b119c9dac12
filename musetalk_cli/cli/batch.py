"""`musetalk batch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from musetalk_cli.cli import batch_options as given
from musetalk_cli.cli.interrupt import stop_on_signals
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.progress import batch_progress
from musetalk_cli.cli.render import print_json, print_table, put, say
from musetalk_cli.config import JobConfig
from musetalk_cli.text import counted

if TYPE_CHECKING:
    from musetalk_cli.run.batch.job import BatchJob
    from musetalk_cli.run.batch.report import BatchReport

SOME_FAILED = 3
"""What the program ends with where jobs failed, and the others are made."""
LISTED = 20
"""Bad lines of a manifest, and failed jobs, that are named."""


@common_options(job=("fps", "alignment", "silence", "sharpen", "image_ops", "no_graphs", "batch_size"))
def batch(
    common: Common,
    manifest: given.Manifest,
    output_dir: given.OutputDir = None,
    pattern: given.Pattern = given.PATTERN,
    workers: given.Workers = None,
    ray: given.Ray = None,
    hang_after: given.HangAfter = None,
    split_over: given.SplitOver = None,
    results: given.ResultsFile = None,
    resume: given.Resume = False,
    dry_run: given.DryRun = False,
    *,
    job: JobConfig,
) -> None:
    """Make avatars speak many recordings, several at once.

    Exits with 3 where some jobs failed; the others are made.
    """
    from musetalk_cli.run.batch.split import most_workers, parse_split
    from musetalk_cli.run.batch.watchdog import Watchdog, parse_hang

    watchdog, over_s = Watchdog(parse_hang(hang_after)), parse_split(split_over)
    jobs = _read(common, manifest, output_dir, pattern, job)
    from musetalk_cli.run.batch.resume import plan
    from musetalk_cli.run.batch.run import run_batch
    from musetalk_cli.sinks import check_not_input

    place = results or (output_dir or manifest.parent) / f"{manifest.stem}.results.jsonl"
    check_not_input(place, manifest, "--results", "the manifest")
    todo = plan(jobs, place, resume=resume)
    if dry_run:
        _list(common, jobs, todo)
        return
    from musetalk_cli.run.batch import pools

    # where nothing is to be done nobody has to be there to do it
    most = most_workers(todo, over_s)
    make_pool = pools.pool_maker(common.run, workers, ray if todo else None, most)
    with stop_on_signals() as handle, batch_progress() as advance:
        report = run_batch(
            todo,
            make_pool,
            place,
            skipped=len(jobs) - len(todo),
            watchdog=watchdog,
            split_over=over_s,
            handle=handle,
            progress=advance,
        )
    _end(common, report)


def _read(
    common: Common, manifest: Path, output_dir: Path | None, pattern: str, job: JobConfig
) -> list[BatchJob]:
    """The jobs of the manifest; every line that cannot be used is named.

    Raises:
        ManifestError: There are such lines, or it cannot be read at all.
    """
    from musetalk_cli.run.batch.manifest import BatchDefaults, read_manifest
    from musetalk_cli.run.batch.rows import ManifestError

    try:
        return read_manifest(manifest, BatchDefaults(common.run, job, output_dir, pattern, common.given))
    except ManifestError as error:
        _name(error.problems)
        raise


def _name(problems: Sequence[str]) -> None:
    for problem in problems[:LISTED]:
        say(problem)
    if (more := len(problems) - LISTED) > 0:
        say(f"... and {more} more.")


def _list(common: Common, jobs: Sequence[BatchJob], todo: Sequence[BatchJob]) -> None:
    """What would be done."""
    open_outputs = {job.output for job in todo}
    rows = [
        ["make" if job.output in open_outputs else "skip", job.avatar, str(job.audio), str(job.output)]
        for job in jobs
    ]
    if common.json:
        names = ("action", "avatar", "audio", "output")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(
            f"{len(todo)} of {len(jobs)} jobs are to be done", ["", "avatar", "audio", "output"], rows
        )


def _end(common: Common, report: BatchReport) -> None:
    """Print what became of a batch, and end as it did.

    Raises:
        KeyboardInterrupt: It was stopped; what was begun is finished.
        typer.Exit: With 3, where jobs failed or were left.
    """
    if common.json:
        print_json(_figures(report))
    else:
        for failure in report.failures[:LISTED]:
            say(" ".join(filter(None, (f"{failure['output']}: {failure['error']}", failure["hint"]))))
        put(
            f"made {report.done}, failed {report.failed}, finished before {report.skipped}, "
            f"left {report.left}; {report.sound_s:.1f} s of sound in {report.seconds:.1f} s, "
            f"{report.jobs_per_minute:.1f} jobs a minute, "
            f"{counted(report.workers, 'worker')} ({report.device})"
        )
        put(f"Each job is told in {report.results}.")
    if report.interrupted:
        raise KeyboardInterrupt
    if report.failed or report.left:
        raise typer.Exit(SOME_FAILED)


def _figures(report: BatchReport) -> dict[str, object]:
    from dataclasses import asdict

    return {**asdict(report), "jobs_per_minute": report.jobs_per_minute, "failures": report.failures[:LISTED]}
