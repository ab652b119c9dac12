"""What the commands show: tables on stdout, progress and errors on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import astuple
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from musetalk_cli import strict_json
from musetalk_cli.cli.log_lines import LogLines
from musetalk_cli.errors import MuseTalkError, OutputError
from musetalk_cli.text import printable, redacted, shortened

if TYPE_CHECKING:
    from musetalk_cli.live.observe import Snapshot
    from musetalk_cli.measure.stages import Percentiles
    from musetalk_cli.run.report import Report

PLAIN_WIDTH = 160

log = logging.getLogger("musetalk_cli")


def console() -> Console:
    """Standard output; wide and plain where it is not a terminal."""
    if sys.stdout.isatty():
        return Console(emoji=False)
    return Console(width=PLAIN_WIDTH, no_color=True, highlight=False, emoji=False)


def after_log() -> None:
    """Let what was logged stand before what is said next."""
    for handler in log.handlers:
        handler.flush()


def show_error(error: MuseTalkError, *, trace: bool) -> None:
    """One sentence and a hint on stderr; the traceback before them on demand."""
    after_log()
    with contextlib.suppress(OSError):  # where stderr cannot be written, the exit code is all that is left
        if trace:
            sys.stderr.write(redacted(printable("".join(traceback.format_exception(error)), keep="\n")))
        target = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
        message = redacted(printable(error.message, keep="\n"))
        target.print(f"[bold red]error:[/] {_line(message)}")
        if error.hint:
            target.print(f"[dim]hint:[/]  {_line(error.hint)}")


def say(text: str) -> None:
    """A line on stderr: what is worth knowing, beside the data; in its place among those of the log."""
    lines = next((handler for handler in log.handlers if isinstance(handler, LogLines)), None)
    if lines is not None:
        lines.put(printable(text))
        return
    with contextlib.suppress(OSError):
        print(printable(text), file=sys.stderr)  # noqa: T201 - the one place that does


def put(text: str, keep: str = "") -> None:
    """A line on stdout, where data goes.

    Args:
        text: The line.
        keep: Characters that are meant as they are: the line ends of a text of several.

    Raises:
        OutputError: It cannot be written.
    """
    with writing():
        print(printable(text, keep))  # noqa: T201 - the one place that does


@contextmanager
def writing() -> Iterator[None]:
    """Turn what a full or broken standard output raises into one sentence.

    Raises:
        OutputError: It cannot be written.
        BrokenPipeError: Nobody reads it any more, which is no failure to speak of.
    """
    after_log()
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritten(error) from error


def unwritten(error: OSError) -> OutputError:
    """What is said where standard output takes no more."""
    return OutputError(f"Standard output cannot be written: {error.strerror}.", "Send it elsewhere.")


def print_json(value: object) -> None:
    """One JSON value on stdout; a figure that is not finite is null."""
    put(strict_json.dump(strict_json.finite(value), indent=2), keep="\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout; every column after the first is right-aligned where it holds figures."""
    table = Table(
        title=escape(printable(title)),
        title_justify="left",
        box=box.ROUNDED if sys.stdout.isatty() else box.SIMPLE,
    )
    for index, name in enumerate(columns):
        figures = index > 0 and all(not row[index] or row[index][0] in "-0123456789" for row in rows)
        table.add_column(name, justify="right" if figures else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(printable(cell, keep="\n")) for cell in row))
    with writing():
        console().print(table)


def _line(text: str) -> str:
    """A text on one line, with no endless word and nothing that markup or a terminal would obey."""
    return escape(shortened(printable(" ".join(text.split("\n")))))


def end_run(report: Report, *, as_json: bool, aside: bool = False) -> None:
    """Print what a finished run took; a run that was stopped before its first frame has nothing to say.

    Args:
        report: The figures.
        as_json: As one JSON object.
        aside: On stderr, since stdout holds the video.

    Raises:
        MuseTalkError: Something failed on the way, and the rest is complete.
        KeyboardInterrupt: The run was stopped by one, or by a signal that counts as one; its files are
            complete.
    """
    if report.interrupted and not report.frames:
        raise KeyboardInterrupt
    with redirect_stdout(sys.stderr) if aside else nullcontext():
        if as_json:
            print_json(report.as_json())
        else:
            show_report(report)
    if report.failures:
        *others, last = report.failures
        for failure in others:
            show_error(failure, trace=False)
        raise MuseTalkError(last.message, last.hint or "What was made until then is complete.") from last
    if report.interrupted:
        raise KeyboardInterrupt


def show_report(report: Report) -> None:
    """A run's headline and its stages."""
    total = sum(stage.total_ms for stage in report.stages.values()) or 1.0
    rows = [
        [
            name,
            str(stage.count),
            *(f"{value:.2f}" for value in astuple(stage.times)),
            f"{stage.total_ms:.0f}",
            f"{100 * stage.total_ms / total:.1f} %",
        ]
        for name, stage in report.stages.items()
    ]
    print_table("Stages", ["stage", "count", "p50 ms", "p95 ms", "p99 ms", "total ms", "share"], rows)
    latencies = [[name, *in_ms(times)] for name, times in named_latencies(report)]
    print_table(f"Latency, chunks of {report.chunk_s:g} s", ["", "p50 ms", "p95 ms", "p99 ms"], latencies)
    put(
        f"{report.frames} frames at {report.fps:g} fps, {report.duration_s:.2f} s; "
        f"real-time factor {report.real_time_factor:.3f} ({report.throughput_fps:.1f} fps)"
    )
    put(
        f"utterances {report.utterances}, stalls {report.stalls}, short of look-ahead {report.short_frames}, "
        f"late {report.late_frames}, dropped {report.dropped_frames}, fallbacks {report.fallbacks}, "
        f"batches halved {report.batch_halvings}, "
        f"faces broken {report.broken_frames}, made again {report.remade_frames}, "
        f"without model work {report.idle_frames} ({100 * report.idle_share:.1f} %), "
        f"held for slow outputs {report.held_frames}, sound lost {report.lost_sound_s:.2f} s, "
        f"broken off {report.sound_breaks} times; "
        f"peak memory {mebibytes(report.peak_host_bytes)} host, "
        f"{mebibytes(report.peak_device_bytes)} device; {report.device}, {report.settings['precision']}"
    )


def named_latencies(figures: Report | Snapshot) -> tuple[tuple[str, Percentiles], ...]:
    """The four latencies of a stream and what they are called."""
    return (
        ("first frame", figures.first_frame_ms),
        ("last frame", figures.last_frame_ms),
        ("mouth to eye", figures.mouth_to_eye_ms),
        ("response", figures.response_ms),
    )


def in_ms(times: Percentiles, digits: int = 1) -> list[str]:
    """p50, p95 and p99 of a latency; dashes where there was nothing to measure."""
    return [f"{value:.{digits}f}" if times.is_measured else "-" for value in astuple(times)]


def mebibytes(count: int | None) -> str:
    """A size for people; a dash where there is none."""
    return "-" if count is None else f"{count / 2**20:.0f} MiB"
