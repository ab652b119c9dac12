"""`musetalk bench realtime`."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.bench.options import AvatarSizes, LiveOptions
from musetalk_cli.cli.bench_options import (
    JsonFile,
    check_json,
    put_machine,
    run_live,
    spread,
    takes_sizes,
)
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import named_latencies, print_table, say
from musetalk_cli.config import JobConfig
from musetalk_cli.timeline import (
    CHUNK_LIMITS,
    parse_chunk,
    seconds_text,
)

if TYPE_CHECKING:
    from musetalk_cli.bench.live import LiveResult

DEFAULTS = LiveOptions()

Chunks = Annotated[
    str,
    typer.Option(
        "--chunk",
        metavar="SECONDS[,SECONDS...]",
        help=f"Lengths of a chunk, {CHUNK_LIMITS}, one run for each.",
    ),
]
Seconds = Annotated[float, typer.Option("--seconds", min=1, max=86_400, help="Length of each run.")]


@common_options(
    json=False,
    model="the published weights, else demo",
    job=("fps", "alignment", "context", "window", "no_graphs", "batch_size", "sharpen"),
)
@takes_sizes
def realtime(
    common: Common,
    chunk: Chunks = ",".join(map(seconds_text, DEFAULTS.chunks)),
    seconds: Seconds = DEFAULTS.seconds,
    *,
    job: JobConfig,
    sizes: AvatarSizes,
    json: JsonFile = None,
) -> None:
    """Time a live stream against the wall clock: its latencies, and the frames that came too late."""
    chunks = tuple(parse_chunk(part.strip()) for part in chunk.split(","))
    check_json(json)
    from musetalk_cli.bench.live import bench_live

    measured = LiveOptions(chunks, seconds, sizes)
    run_live(
        lambda handle: bench_live(common.run, job, measured, say, handle),
        lambda result: _show(result, job.fps),
        json,
    )


def _show(result: LiveResult, fps: Fraction) -> None:
    from musetalk_cli.bench.live import missed

    rows, names = [], []
    for run in result.runs:
        latencies = dict(named_latencies(run))
        names = list(latencies)
        figures = [spread(each) for each in latencies.values()]
        late = f"{missed(run)} of {run.frames}"
        rows.append(
            [f"{run.chunk_s:g} s", *figures, late, str(run.dropped_frames), f"{run.real_time_factor:.3f}"]
        )
    columns = ["chunk", *names, "missed", "dropped", "real-time factor"]
    print_table(f"Live at {float(fps):g} fps, latencies p50 / p95 / p99 in ms", columns, rows)
    if result.runs:
        put_machine(result.runs[-1])
