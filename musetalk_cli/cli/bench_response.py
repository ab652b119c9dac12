"""`musetalk bench response`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from musetalk_cli.bench.options import AvatarSizes, ResponseOptions, Sending
from musetalk_cli.cli.bench_options import (
    JsonFile,
    check_json,
    put_machine,
    run_live,
    spread,
    takes_sizes,
)
from musetalk_cli.cli.options import Common, common_options
from musetalk_cli.cli.render import print_table, say
from musetalk_cli.config import JobConfig
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import CHUNK_LIMITS, parse_live_chunk, seconds_text

if TYPE_CHECKING:
    from musetalk_cli.bench.response import ResponseResult
    from musetalk_cli.live.control import ControlHandle

DEFAULTS = ResponseOptions()
CHUNKS = ["auto" if chunk is None else seconds_text(chunk) for chunk in DEFAULTS.chunks]
LiveChunks = Annotated[
    str,
    typer.Option(
        "--chunk",
        metavar="auto|SECONDS[,...]",
        help=f"Lengths of a chunk, {CHUNK_LIMITS}, a run for each; auto is the shortest that is sustained.",
    ),
]
Sendings = Annotated[
    str,
    typer.Option(
        "--sound",
        metavar="burst|spoken[,...]",
        help="Each utterance at once, or as it is spoken; a run for each.",
    ),
]
Utterances = Annotated[int, typer.Option("--utterances", min=1, max=10_000, help="Utterances in each run.")]
Pause = Annotated[
    float,
    typer.Option(
        "--pause", min=0.5, max=60, help="Seconds of silence between them, up to half as long again."
    ),
]
Ideal = Annotated[
    bool, typer.Option("--ideal", help="A device that takes no time, on a simulated clock: no networks.")
]


@common_options(
    json=False,
    model="the published weights, else demo",
    job=("fps", "alignment", "context", "window", "no_graphs", "batch_size", "sharpen"),
)
@takes_sizes
def response(
    common: Common,
    chunk: LiveChunks = ",".join(CHUNKS),
    sound: Sendings = ",".join(DEFAULTS.sendings),
    utterances: Utterances = DEFAULTS.utterances,
    pause: Pause = DEFAULTS.pause_s,
    ideal: Ideal = False,
    *,
    job: JobConfig,
    sizes: AvatarSizes,
    json: JsonFile = None,
) -> None:
    """Time how soon a live stream answers: from an utterance's first sound to its first speaking frame."""
    chunks = tuple(parse_live_chunk(part.strip()) for part in chunk.split(","))
    sendings = _sendings(sound)
    check_json(json)
    if ideal and common.run.model is not None:
        raise InputError("--ideal has no networks, so --model does nothing.", "Leave one of them out.")
    from musetalk_cli.bench.response import bench_ideal, bench_response

    measured = ResponseOptions(chunks, sendings, utterances, pause, sizes)

    def measure(handle: ControlHandle) -> ResponseResult:
        if ideal:
            return bench_ideal(job, measured, say)
        return bench_response(common.run, job, measured, say, handle)

    run_live(measure, _show, json)


def _sendings(text: str) -> tuple[Sending, ...]:
    parts = [part.strip() for part in text.split(",")]
    found = tuple(sending for part in parts for sending in get_args(Sending) if sending == part)
    if len(found) < len(parts):
        raise InputError(f"--sound {text} is not understood.", "Write burst, spoken or burst,spoken.")
    return found


def _show(result: ResponseResult) -> None:
    rows = []
    for run in result.runs:
        outcome = run.outcome
        latencies = [outcome.latencies.worst_response(), run.sent_to_shown_ms, run.delay_ms]
        rows.append(
            [
                f"{outcome.latencies.chunk_s:g} s, {run.sending}",
                *map(spread, latencies),
                f"{run.whole} of {run.sent}",
                str(outcome.stalls),
                str(outcome.dropped),
                str(outcome.short),
                "-" if run.report is None else f"{run.report.real_time_factor:.3f}",
            ]
        )
    columns = ["chunk", "response", "sent to shown", "delay", "whole", "stalls", "dropped", "short"]
    title = "Response, a device that takes no time" if result.ideal else "Response"
    print_table(f"{title}, p50 / p95 / p99 in ms", [*columns, "real-time factor"], rows)
    last = next((run.report for run in reversed(result.runs) if run.report is not None), None)
    if last is not None:
        put_machine(last)
