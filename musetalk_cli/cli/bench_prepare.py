"""`musetalk bench prepare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from musetalk_cli.bench.options import PreparingOptions
from musetalk_cli.cli import prepare_options as given
from musetalk_cli.cli.bench_options import (
    Baseline,
    FrameSize,
    JsonFile,
    check_json,
    parse_size,
    size_text,
    write_json,
)
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import mebibytes, print_table, put, say
from musetalk_cli.errors import InputError

if TYPE_CHECKING:
    from musetalk_cli.bench.preparing import PreparingResult
    from musetalk_cli.bench.task import Order

DEFAULTS = PreparingOptions()

Frames = Annotated[
    str, typer.Option("--frames", metavar="N[,N...]", help="Frames of the clip, one run for each number.")
]


@common_options(json=False, model="the published weights, else demo")
def prepare(
    common: Common,
    frames: Frames = ",".join(map(str, DEFAULTS.frames)),
    frame_size: FrameSize = size_text(DEFAULTS),
    detector: given.DetectorOption = DEFAULTS.detector,
    parser: given.ParserOption = DEFAULTS.parser,
    batch_size: given.BatchSize = DEFAULTS.batch_size,
    baseline: Baseline = DEFAULTS.baseline,
    json: JsonFile = None,
) -> None:
    """Measure the time of every stage of preparation and of the whole, and its memory, on a synthetic clip.

    The published order of work has the same networks: one frame at a time, all in memory, written twice.
    """
    lengths, (width, height) = _lengths(frames), parse_size(frame_size)
    check_json(json)
    from musetalk_cli.bench.preparing import bench_preparing

    options = PreparingOptions(lengths, width, height, detector, parser, batch_size, baseline=baseline)
    result = bench_preparing(common.run, options, say)
    if json != "-":
        _show(result)
    write_json(json, result.as_json())


def _lengths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--frames {text} is not understood.", "Write it like 250,1000.")
    return tuple(int(part) for part in parts)


def _show(result: PreparingResult) -> None:
    from musetalk_cli.bench.preparing import STAGES, name_of
    from musetalk_cli.bench.task import OURS, UPSTREAM

    stages = [stage for stage in STAGES if any(stage in run.stages for run in result.runs)]
    rows = [
        [
            f"{name_of(order)}, {run.frames}",
            f"{run.frames_per_s:.2f}",
            *(f"{run.stages[stage]:.1f}" if stage in run.stages else "-" for stage in stages),
            f"{run.peak_bytes / 2**20:.0f}",
            f"{run.beyond_models_bytes / 2**20:.0f}",
        ]
        for order in (OURS, UPSTREAM)
        for run in result.of(order)
    ]
    columns = ["frames", "whole", *stages, "peak MiB", "beyond models MiB"]
    first, options = result.runs[0], result.options
    print_table(f"Preparation of {options.width}x{options.height}, frames/s", columns, rows)
    masks = "a face parser" if first.parsed else "the landmarks' outline"
    put(
        f"{result.model} in {first.precision}, batches of {first.batch_size}; faces by {first.detector}, "
        f"masks by {masks}; {result.device}; models and libraries take {mebibytes(first.models_bytes)}"
    )
    for order in (OURS, UPSTREAM):
        _show_growth(result, order)
    for frames, ratio in result.speed_ups().items():
        put(f"{frames} frames: {ratio:.2f} times as fast as the published order of work")


def _show_growth(result: PreparingResult, order: Order) -> None:
    from musetalk_cli.bench.preparing import name_of

    growth, runs = result.growth_bytes(order), result.of(order)
    if growth is not None:
        lengths = f"from {runs[0].frames} to {runs[-1].frames} frames"
        put(f"{name_of(order)}: the peak grows by {growth / 1024:.1f} KiB a frame {lengths}")
