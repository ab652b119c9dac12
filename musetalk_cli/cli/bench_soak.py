"""`musetalk bench soak`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.bench.options import AvatarSizes, SoakOptions
from musetalk_cli.cli.bench_options import (
    JsonFile,
    check_json,
    run_live,
    spread,
    takes_sizes,
)
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import mebibytes, print_table, put, say
from musetalk_cli.config import JobConfig

if TYPE_CHECKING:
    from musetalk_cli.bench.soak import SoakResult

DEFAULTS = SoakOptions()

Sessions = Annotated[
    int | None,
    typer.Option(
        "--sessions",
        min=1,
        max=1000,
        help="Streams that speak at once.",
        show_default="what the machine sustains, with a fifth of the time to spare",
    ),
]
Seconds = Annotated[float, typer.Option("--seconds", min=1, max=86_400, help="How long they speak.")]


@common_options(
    json=False,
    model="the published weights, else demo",
    job=("fps", "alignment", "live_chunk", "context", "window", "no_graphs", "batch_size", "sharpen"),
)
@takes_sizes
def soak(
    common: Common,
    sessions: Sessions = DEFAULTS.sessions,
    seconds: Seconds = DEFAULTS.seconds,
    *,
    job: JobConfig,
    sizes: AvatarSizes,
    json: JsonFile = None,
) -> None:
    """Let many live streams speak at once against the wall clock: late frames, latencies, growing memory."""
    check_json(json)
    from musetalk_cli.bench.soak import bench_soak

    measured = SoakOptions(sessions, seconds, sizes)
    run_live(lambda handle: bench_soak(common.run, job, measured, say, handle), _show, json)


def _show(result: SoakResult) -> None:
    times = (result.first_frame_ms, result.last_frame_ms, result.mouth_to_eye_ms)
    row = [
        str(result.sessions),
        str(result.capacity),
        f"{result.chunk_s:g} s",
        *map(spread, times),
        f"{result.missed} of {result.frames}",
        str(result.dropped),
        str(result.stalls),
        f"{100 * result.busy_share:.0f} %",
    ]
    columns = [
        "sessions",
        "sustained",
        "chunk",
        "first frame",
        "last frame",
        "mouth to eye",
        "missed",
        "dropped",
        "stalls",
    ]
    title = f"{result.seconds:g} s, of the worst session p50 / p95 / p99 in ms"
    print_table(title, [*columns, "device busy"], [row])
    put(
        f"{result.device}, {result.settings['precision']}, model {result.settings['model']}; memory grew by "
        f"{mebibytes(result.grown_bytes)}; peak {mebibytes(result.peak_host_bytes)} host, "
        f"{mebibytes(result.peak_device_bytes)} device"
    )
    for failure in result.failures:
        put(f"failed: {failure}")
