"""`musetalk bench`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musetalk_cli.bench.options import BenchOptions
from musetalk_cli.cli import bench_prepare, bench_realtime, bench_response
from musetalk_cli.cli.bench_options import (
    AvatarFrames,
    FaceSize,
    FrameSize,
    JsonFile,
    check_json,
    parse_size,
    size_text,
    write_json,
)
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import print_table, put, say, show_report
from musetalk_cli.config import JobConfig

if TYPE_CHECKING:
    from musetalk_cli.bench.run import BenchResult


DEFAULTS = BenchOptions()

app = typer.Typer()
app.command("prepare")(bench_prepare.prepare)
app.command("realtime")(bench_realtime.realtime)
app.command("response")(bench_response.response)


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
    job=("fps", "alignment", "chunk", "batch_size", "sharpen"),
)
def bench(
    common: Common,
    job: JobConfig,
    json: JsonFile = None,
    frame_size: FrameSize = size_text(DEFAULTS),
    face_size: FaceSize = DEFAULTS.face,
    avatar_frames: AvatarFrames = DEFAULTS.avatar_frames,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", min=0.1, max=3600, help="Length of the whole stream.", show_default="10, on a CPU 1"
        ),
    ] = DEFAULTS.seconds,
    budget: Annotated[
        float, typer.Option("--budget", min=0, help="Seconds to spend on each figure.")
    ] = DEFAULTS.budget_s,
) -> None:
    """Time every stage and the whole on synthetic input. What random weights make is only good for timing."""
    width, height = parse_size(frame_size)
    check_json(json)
    from musetalk_cli.bench.run import bench as run

    result = run(
        common.run,
        job,
        BenchOptions(
            seconds, budget, width=width, height=height, face=face_size, avatar_frames=avatar_frames
        ),
        say,
    )
    if json != "-":
        _show(result)
    write_json(json, result.as_json())


def _show(result: BenchResult) -> None:
    roofline = result.roofline
    path = "GPU" if result.stream.peak_device_bytes is not None else "tensor"
    rows = [
        [
            str(batch.size),
            f"{batch.unet_ms:.1f}",
            f"{batch.vae_ms:.1f}",
            f"{sum(batch.gpu_ms.values()):.2f}",
            f"{sum(batch.cpu_ms.values()):.2f}",
            f"{batch.speed_up:.2f}",
            f"{batch.frames_per_s:.2f}",
            f"{batch.roofline_fps:.2f}",
            f"{100 * batch.roofline_share:.0f} %",
        ]
        for batch in result.batches
    ]
    columns = ["batch", "UNet ms", "VAE ms", f"image {path} ms", "image CPU ms", f"CPU/{path}"]
    print_table("By batch size", [*columns, "frames/s", "roofline frames/s", "reached"], rows)
    steps = [
        [str(batch.size), name, f"{batch.gpu_ms[name]:.2f}", f"{batch.cpu_ms[name]:.2f}"]
        for batch in result.batches
        for name in batch.gpu_ms
    ]
    print_table("Image steps, the whole batch", ["batch", "step", f"{path} path ms", "CPU path ms"], steps)
    peaks = (
        f"one large matrix product {roofline.tflops:.2f} TFLOP/s, one copy {roofline.gbytes_per_s:.1f} GB/s"
    )
    put(f"{result.gflop_per_frame:.0f} GFLOP a frame; {peaks}; features {result.features_ms:.1f} ms a window")
    show_report(result.stream)
