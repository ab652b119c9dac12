"""`musetalk bench`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from musetalk_cli.bench.hardware import GpuName
from musetalk_cli.bench.options import AvatarSizes, BenchOptions
from musetalk_cli.cli import bench_prepare, bench_realtime, bench_response, bench_soak
from musetalk_cli.cli.bench_options import Baseline, JsonFile, check_json, takes_sizes, write_json
from musetalk_cli.cli.bench_tables import show_bench
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import say
from musetalk_cli.config import JobConfig
from musetalk_cli.timeline import CHUNK_LIMITS, parse_chunk

DEFAULTS = BenchOptions()
Chunks = Annotated[
    str | None,
    typer.Option(
        "--chunk",
        metavar="SECONDS[,SECONDS...]",
        help=f"Lengths of a chunk, {CHUNK_LIMITS}, a stream for each.",
        show_default="0.1,0.2,0.5, on a CPU 0.5",
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option(
        "--seconds", min=0.1, max=3600, help="Length of each stream.", show_default="10, on a CPU 1"
    ),
]
Budget = Annotated[float, typer.Option("--budget", min=0, help="Seconds to spend on each figure.")]
Predict = Annotated[
    GpuName | None,
    typer.Option(
        "--predict",
        help="Predict besides, by a model and no measurement, what this GPU would take.",
        show_default="none",
    ),
]
ProfileDir = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="DIR",
        help="Record batches of the largest size: a trace for Chrome's or Perfetto's viewer, and the "
        "operators that take most.",
        show_default="none",
    ),
]
Earlier = Annotated[
    Path | None,
    typer.Option(
        "--compare",
        metavar="OLD.json",
        help="Compare with what --json wrote earlier, on the same hardware with the same model and "
        "settings. The exit code is 1 where a median is worse by more than --tolerance.",
        show_default="none",
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance", metavar="PERCENT", min=0, max=1000, help="Worse by so much is accepted by --compare."
    ),
]

app = typer.Typer()
app.command("prepare")(bench_prepare.prepare)
app.command("realtime")(bench_realtime.realtime)
app.command("response")(bench_response.response)
app.command("soak")(bench_soak.soak)


def _where_nothing_follows(callback: Callable[..., None]) -> Callable[..., None]:
    """Do a group's own work only where none of its commands was asked for; its options are not theirs."""

    @functools.wraps(callback)
    def wrapper(ctx: typer.Context, **values: Any) -> None:  # noqa: ANN401 - typer passes each option's own type
        if ctx.invoked_subcommand is None:
            callback(ctx, **values)
            return
        for parameter in ctx.command.params:
            source = ctx.get_parameter_source(parameter.name or "")
            if source is not None and source.name == "COMMANDLINE":
                ctx.fail(f"Pass {parameter.opts[0]} after {ctx.invoked_subcommand}.")

    return wrapper


@app.callback(invoke_without_command=True)
@_where_nothing_follows
@common_options(
    json=False,
    model="the published weights, else demo",
    job=("fps", "alignment", "no_graphs", "batch_size", "sharpen"),
)
@takes_sizes
def bench(
    common: Common,
    job: JobConfig,
    chunk: Chunks = None,
    json: JsonFile = None,
    *,
    sizes: AvatarSizes,
    seconds: Seconds = DEFAULTS.seconds,
    budget: Budget = DEFAULTS.budget_s,
    baseline: Baseline = DEFAULTS.baseline,
    predict: Predict = DEFAULTS.predict,
    profile: ProfileDir = DEFAULTS.profile,
    compare: Earlier = DEFAULTS.compare,
    tolerance: Tolerance = 100 * DEFAULTS.tolerance,
) -> None:
    """Time every stage and the whole on synthetic input. What random weights make is only good for timing."""
    chunks = None if chunk is None else tuple(parse_chunk(part.strip()) for part in chunk.split(","))
    check_json(json)
    if profile is not None:
        # what the profiler says of itself on stderr; its library reads this as it is loaded
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    from musetalk_cli.bench.run import bench as run

    options = BenchOptions(
        chunks, seconds, budget, baseline, predict, profile, compare, tolerance / 100, sizes
    )
    result = run(common.run, job, options, say)
    if json != "-":
        show_bench(result)
    write_json(json, result.as_json())
    if result.comparison is not None:
        result.comparison.check()
