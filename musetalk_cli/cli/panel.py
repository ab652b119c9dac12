"""What `musetalk realtime` shows while it runs: a panel on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from musetalk_cli.cli.progress import LINE_EVERY_S
from musetalk_cli.cli.render import in_ms, named_latencies
from musetalk_cli.cli.time_left import in_hours
from musetalk_cli.text import PROGRESS, printable, redacted

if TYPE_CHECKING:
    from musetalk_cli.live.observe import Snapshot
    from musetalk_cli.measure.gpu import GpuMonitor, GpuUse

log = logging.getLogger("musetalk_cli")

Show = Callable[["Snapshot"], None]
"""Takes what a run did so far, as often as its caller likes; it is called from one thread at a time."""

DRAW_EVERY_S = 0.25
_WRONG = "bold red"
_NAMES = 18
"""Columns of the figures' names."""


@contextmanager
def live_panel(title: str, *, enabled: bool, gpu: GpuMonitor | None = None) -> Iterator[Show]:
    """Show a run on stderr; log lines go above the panel.

    Args:
        title: Who speaks, and what.
        enabled: Draw a panel where stderr is a terminal; otherwise lines are all there is.
        gpu: Reads the use of the GPU.
    """
    title = redacted(printable(title))
    console = Console(stderr=True, emoji=False)
    if not (enabled and sys.stderr.isatty() and console.is_interactive):
        yield _at_most_every(
            LINE_EVERY_S, lambda now: log.log(PROGRESS, "%s", _line(title, now, _use(gpu))), 0.0
        )
        return
    with _panel(console) as draw:
        yield _at_most_every(DRAW_EVERY_S, lambda now: draw(render(title, now, _use(gpu))))


def render(title: str, snapshot: Snapshot, gpu_use: GpuUse | None) -> RenderableType:
    """The panel."""
    state = ("speaking", "bold green") if snapshot.speaking else ("silent", "dim")
    parts: list[RenderableType] = [
        _side_by_side(_figures(snapshot), _latencies(snapshot)),
        _named("waiting", _waiting(snapshot)),
    ]
    if gpu_use is not None:
        parts.append(_named("GPU", _gpu(gpu_use)))
    if snapshot.failed:
        parts.append(_named("failed", printable(", ".join(snapshot.failed)), _WRONG))
    return Panel(Group(*parts), title=Text.assemble((title, "bold"), ": ", state), title_align="left")


@contextmanager
def _panel(console: Console) -> Iterator[Callable[[RenderableType], None]]:
    """A place on the terminal that is drawn anew; where the terminal goes away, drawing ends."""
    live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
    lost = False
    with ExitStack() as stack:

        def draw(panel: RenderableType) -> None:
            nonlocal lost
            if lost:
                return
            try:
                live.update(panel, refresh=True)
            except OSError as error:
                lost = True
                stack.close()  # log lines would wait in the console for ever
                log.debug("The terminal is gone: %s", error)

        real = sys.stderr
        live.start()
        stack.callback(_stop, live)
        for handler in log.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is real:
                handler.setStream(sys.stderr)
                stack.callback(handler.setStream, real)
        yield draw


def _stop(live: Live) -> None:
    try:
        live.stop()
    except OSError as error:
        log.debug("The terminal is gone: %s", error)


def _at_most_every(seconds: float, show: Show, last: float = float("-inf")) -> Show:
    """Leave out what comes sooner than that many seconds of the run after the last one shown."""

    def take(snapshot: Snapshot) -> None:
        nonlocal last
        if snapshot.elapsed_s - last >= seconds:
            last = snapshot.elapsed_s
            show(snapshot)

    return take


def _use(gpu: GpuMonitor | None) -> GpuUse | None:
    return None if gpu is None else gpu.read()


def _side_by_side(*tables: Table) -> Table:
    grid = Table.grid(padding=(0, 4))
    grid.add_row(*tables)
    return grid


def _named(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name:{_NAMES}}", "dim"), (value, style))


def _figures(snapshot: Snapshot) -> Table:
    table = Table.grid()
    table.add_column(style="dim", width=_NAMES)
    table.add_column()
    table.add_row("elapsed", in_hours(int(snapshot.elapsed_s)))
    table.add_row("frames", f"{snapshot.frames:,} at {snapshot.fps:.1f} fps")
    table.add_row("real-time factor", f"{snapshot.real_time_factor:.3f}")
    table.add_row("utterances", f"{snapshot.utterances:,}")
    table.add_row("stalls", _count(snapshot.stalls))
    table.add_row("late", _count(snapshot.late))
    table.add_row("dropped", _count(snapshot.dropped))
    table.add_row("saved by silence", f"{_saved(snapshot):.1f} %")
    return table


def _latencies(snapshot: Snapshot) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("latency")
    table.add_column("p50 ms", justify="right")
    table.add_column("p95 ms", justify="right")
    for name, times in named_latencies(snapshot):
        table.add_row(name, *in_ms(times)[:2])
    return table


def _line(title: str, snapshot: Snapshot, gpu_use: GpuUse | None) -> str:
    """The panel on one line."""
    latencies = [f"{name} {'/'.join(in_ms(times, 0)[:2])}" for name, times in named_latencies(snapshot)]
    parts = [
        f"{title}: {'speaking' if snapshot.speaking else 'silent'}",
        in_hours(int(snapshot.elapsed_s)),
        f"{snapshot.frames} frames at {snapshot.fps:.1f} fps",
        f"real-time factor {snapshot.real_time_factor:.3f}",
        f"{', '.join(latencies)} ms (p50/p95)",
        f"waiting {_waiting(snapshot)}",
        f"utterances {snapshot.utterances}, stalls {snapshot.stalls}",
        f"late {snapshot.late}, dropped {snapshot.dropped}, saved by silence {_saved(snapshot):.1f} %",
    ]
    if gpu_use is not None:
        parts.append(f"GPU {_gpu(gpu_use)}")
    if snapshot.failed:
        parts.append(f"failed: {', '.join(snapshot.failed)}")
    return "; ".join(parts)


def _waiting(snapshot: Snapshot) -> str:
    return (
        f"{snapshot.waiting.sound} sound, {snapshot.waiting.requests} requests, "
        f"{snapshot.waiting.frames} frames"
    )


def _saved(snapshot: Snapshot) -> float:
    """Percent of the frames that no network made."""
    return 100 * snapshot.idle / max(snapshot.frames, 1)


def _gpu(use: GpuUse) -> str:
    memory = f"{use.memory_bytes / 2**30:.1f} of {use.memory_total_bytes / 2**30:.1f} GiB"
    return memory if use.utilisation_percent is None else f"{memory}, {use.utilisation_percent} %"


def _count(wrong: int) -> Text:
    return Text(f"{wrong:,}", style=_WRONG if wrong else "")
