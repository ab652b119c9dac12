"""How far a batch is: a bar on a terminal, elsewhere a line now and then; with the time left for all jobs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from musetalk_cli.cli.render import LINE_EVERY_S
from musetalk_cli.cli.time_left import TimeLeft
from musetalk_cli.text import PROGRESS

if TYPE_CHECKING:
    from musetalk_cli.run.batch.report import Standing

log = logging.getLogger("musetalk_cli")


@contextmanager
def batch_progress() -> Iterator[Callable[[Standing], None]]:
    """Shows a batch on stderr."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = [
        TextColumn("speaking"),
        BarColumn(),
        TextColumn("{task.fields[jobs]}"),
        TextColumn("[dim]{task.fields[left]}"),
    ]
    with Progress(*columns, console=Console(stderr=True, emoji=False), transient=True) as bar:
        task = bar.add_task("", total=None, jobs="", left="")
        estimate = TimeLeft()

        def advance(now: Standing) -> None:
            estimate.update(now.work, time.monotonic())
            left = estimate.text(now.total)
            bar.update(task, completed=now.work, total=now.total, jobs=_jobs(now), left=left)

        yield advance


def _lines() -> Callable[[Standing], None]:
    shown, estimate = time.monotonic(), TimeLeft()

    def advance(now: Standing) -> None:
        nonlocal shown
        moment = time.monotonic()
        estimate.update(now.work, moment)
        if moment - shown >= LINE_EVERY_S:
            shown = moment
            figures = filter(None, (_jobs(now), estimate.text(now.total)))
            log.log(PROGRESS, "%s", f"speaking: {', '.join(figures)}")

    return advance


def _jobs(now: Standing) -> str:
    failed = f", {now.failed} failed" if now.failed else ""
    return f"{now.ended} of {now.jobs} jobs{failed}"
