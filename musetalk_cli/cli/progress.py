"""Progress on stderr: one bar with rate and time left on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TaskProgressColumn, TextColumn

from musetalk_cli.cli.time_left import TimeLeft
from musetalk_cli.text import PROGRESS

if TYPE_CHECKING:
    from musetalk_cli.preparation.run import Step
    from musetalk_cli.run.batch.report import Standing

LINE_EVERY_S = 5.0

log = logging.getLogger("musetalk_cli")


def size_text(count: float) -> str:
    """A size for people, in the units that disks and the hub are sold in: `3.4 GB`, `151 MB`, `748 B`."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


@dataclass(frozen=True, slots=True)
class Unit:
    """What a display counts.

    Attributes:
        count: So many of it are done, of how many, if that is known.
        per_second: A rate; empty where none is told.
        column: Shows on a terminal how many are done.
        at_once: A bar is there before the first count; else what never is told shows nothing.
    """

    count: Callable[[int, int | None], str]
    per_second: Callable[[float], str]
    column: Callable[[], ProgressColumn]
    at_once: bool = True


FRAMES = Unit(
    lambda done, total: f"{done} frames" if total is None else f"{done} of {total} frames",
    lambda rate: f"{rate:.1f} fps",
    TaskProgressColumn,
)
BYTES = Unit(
    lambda done, total: size_text(done) if total is None else f"{size_text(done)} of {size_text(total)}",
    lambda rate: f"{size_text(rate)}/s",
    DownloadColumn,
    at_once=False,
)
_SHARES = Unit(lambda *_: "", lambda _: "", lambda: TextColumn("{task.fields[count]}"))
"""Shares of jobs, of which nobody wants to know how many: jobs are told in their place."""


class Advance(Protocol):
    """Tells a display how far the work is."""

    def __call__(self, done: int, total: int | None, note: str = "", count: str | None = None) -> None:
        """`done` of `total`, None where the total is not known.

        Args:
            done: How many are done.
            total: How many there will be.
            note: Shown beside the figures.
            count: Told in the place of `done` and `total`.
        """


@contextmanager
def progress(label: str, unit: Unit = FRAMES) -> Iterator[Advance]:
    """A bar on a terminal; a line every few seconds elsewhere, from the second on."""
    if not sys.stderr.isatty():
        yield _lines(label, unit)
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        unit.column(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True, emoji=False), transient=True) as bar:
        task = bar.add_task(label, total=None, visible=unit.at_once, count="", rate="", left="", note="")
        estimate = TimeLeft()

        def advance(done: int, total: int | None, note: str = "", count: str | None = None) -> None:
            estimate.update(done, time.monotonic())
            count, rate, left = _figures(done, total, estimate, unit, count)
            texts: dict[str, Any] = {"count": count, "rate": rate, "left": left, "note": note}
            bar.update(task, completed=done, total=total, visible=True, **texts)

        yield advance


def _lines(label: str, unit: Unit) -> Advance:
    shown, estimate = time.monotonic(), TimeLeft()

    def advance(done: int, total: int | None, note: str = "", count: str | None = None) -> None:
        nonlocal shown
        now = time.monotonic()
        estimate.update(done, now)
        if now - shown < LINE_EVERY_S:
            return
        shown = now
        figures = ", ".join(filter(None, _figures(done, total, estimate, unit, count)))
        log.log(PROGRESS, "%s", f"{label}: {figures} {note}".rstrip())

    return advance


def _figures(
    done: int, total: int | None, estimate: TimeLeft, unit: Unit, count: str | None
) -> tuple[str, str, str]:
    """Count, rate and time left; the last two are empty while they are not known."""
    count = unit.count(done, total) if count is None else count
    return count, unit.per_second(estimate.rate) if estimate.rate else "", estimate.text(total)


class AdvanceStage(Protocol):
    """Tells a display in stages how far one of them is."""

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """As `Advance`; the first word of a stage ends the display of the one before."""


@contextmanager
def stages(unit: Unit = FRAMES) -> Iterator[AdvanceStage]:
    """Stages one after the other, each with a display of its own."""
    with ExitStack() as stack:
        displays: dict[str, Advance] = {}

        def advance(stage: str, done: int, total: int | None, note: str = "") -> None:
            if stage not in displays:
                stack.close()
                displays[stage] = stack.enter_context(progress(stage, unit))
            displays[stage](done, total, note)

        yield advance


def steps_of(advance: AdvanceStage) -> Callable[[Step], None]:
    """Shows the stages of a preparation, each with the rates of its parts."""

    def tell(step: Step) -> None:
        rates = ", ".join(f"{name} {rate:.0f}" for name, rate in step.rates.items())
        advance(step.stage, step.done, step.total, f"({rates} fps)" if rates else "")

    return tell


@contextmanager
def batch_progress() -> Iterator[Callable[[Standing], None]]:
    """Shows a batch: its jobs, and the time left for all of them."""
    with progress("speaking", _SHARES) as advance:

        def tell(now: Standing) -> None:
            failed = f", {now.failed} failed" if now.failed else ""
            advance(now.work, now.total, count=f"{now.ended} of {now.jobs} jobs{failed}")

        yield tell
