"""The progress of bytes: one bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from musetalk_cli.cli.render import LINE_EVERY_S
from musetalk_cli.cli.time_left import TimeLeft
from musetalk_cli.text import PROGRESS

Told = Callable[[int, int], None]

log = logging.getLogger("musetalk_cli")


def size_text(count: float) -> str:
    """A size for people, in the units that disks and the hub are sold in: `3.4 GB`, `151 MB`, `748 B`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


@contextmanager
def bytes_progress(label: str) -> Iterator[Told]:
    """A display that is told how many bytes of how many are done; what never is told shows nothing."""
    if not sys.stderr.isatty():
        yield _lines(label)
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
    ]
    with Progress(*columns, console=Console(stderr=True, emoji=False), transient=True) as bar:
        task = bar.add_task(label, total=None, rate="", left="", visible=False)
        estimate = TimeLeft()

        def told(done: int, total: int) -> None:
            estimate.update(done, time.monotonic())
            rate, left = _figures(estimate, total)
            bar.update(task, completed=done, total=total, rate=rate, left=left, visible=True)

        yield told


@contextmanager
def staged_progress(name: str) -> Iterator[Callable[[str, int, int], None]]:
    """The same for stages, one after the other, each with a display of its own."""
    with ExitStack() as stack:
        stages: dict[str, Told] = {}

        def told(stage: str, done: int, total: int) -> None:
            if stage not in stages:
                stack.close()
                stages[stage] = stack.enter_context(bytes_progress(f"{stage} {name}"))
            stages[stage](done, total)

        yield told


def _lines(label: str) -> Told:
    shown, estimate = time.monotonic(), TimeLeft()

    def told(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        estimate.update(done, now)
        if now - shown < LINE_EVERY_S:
            return
        shown = now
        figures = [f"{size_text(done)} of {size_text(total)}", *filter(None, _figures(estimate, total))]
        log.log(PROGRESS, "%s", f"{label}: {', '.join(figures)}")

    return told


def _figures(estimate: TimeLeft, total: int) -> tuple[str, str]:
    """Rate and time left; empty while they are not known."""
    return f"{size_text(estimate.rate)}/s" if estimate.rate else "", estimate.text(total)
