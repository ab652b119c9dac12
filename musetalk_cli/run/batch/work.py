"""What a worker does with a job, wherever it runs: the same for a process here and an actor elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from musetalk_cli.budget import is_out_of_memory, out_of_memory
from musetalk_cli.errors import DeviceError, MuseTalkError, describe
from musetalk_cli.media.digest import digest_of
from musetalk_cli.run.batch.job import BatchJob, Json
from musetalk_cli.run.batch.piece import Piece
from musetalk_cli.run.batch.piecework import Told, join_parts, make_part, survey
from musetalk_cli.run.batch.pool import LOST
from musetalk_cli.run.batch.results import DONE, FAILED
from musetalk_cli.run.dub import dub
from musetalk_cli.run.generate import FileProgress, generate
from musetalk_cli.run.kept import Kept
from musetalk_cli.run.report import Report

FIGURES = (
    *("frames", "fps", "duration_s", "real_time_factor", "throughput_fps", "idle_frames", "broken_frames"),
    *("remade_frames", "fallbacks", "peak_host_bytes", "peak_device_bytes", "device"),
)
"""What the results keep of a report."""
TELL_S = 1.0
"""How often it is told that a face is prepared."""


def set_threads(threads: int) -> None:
    """Let the libraries of this process compute with so many threads."""
    import cv2

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def do_job(
    data: Json,
    kept: Kept,
    progress: FileProgress | None = None,
    prepares: Callable[[], None] | None = None,
) -> Json:
    """Make one video, or a piece of one.

    Args:
        data: What `BatchJob.to_json` gave; with `piece`, what `Piece.to_json` gave, only that is done.
        kept: What stays loaded.
        progress: Told of the frames made and all there will be.
        prepares: Called every second while a face is prepared, or somebody is waited for who prepares it.

    Returns:
        `state`, which is `done`, `failed` or `lost`; with `done` the size, digest and figures of the output,
        or what the piece gave, else `error` and `hint`. After `lost` the worker should end.
    """
    started = time.monotonic()
    job = BatchJob.from_json(data)
    told = _now_and_then(prepares or (lambda: None))
    try:
        if "piece" in data:
            return {"state": DONE} | _do_piece(job, Piece.from_json(data["piece"]), kept, progress, told)
        report = _speak(job, kept, progress, told)
        return _done(job, report, time.monotonic() - started)
    except Exception as error:
        seconds = round(time.monotonic() - started, 3)
        failure = _told(error)
        state = LOST if _is_infrastructure(error) else FAILED
        return {"state": state, "error": failure.message, "hint": failure.hint, "seconds": seconds}


def _do_piece(job: BatchJob, piece: Piece, kept: Kept, progress: FileProgress | None, told: Told) -> Json:
    if piece.kind == "survey":
        return survey(job, piece, told)
    if piece.kind == "join":
        return join_parts(job, piece, told)
    return {"figures": _figures(make_part(job, piece, kept, progress, told))}


def _speak(job: BatchJob, kept: Kept, progress: FileProgress | None, told: Told) -> Report:
    if job.source is None:
        return generate(job.run, job.job, job.avatar, job.audio, job.output, progress=progress, kept=kept)
    fps = None if job.own_rate else job.job.fps
    return dub(
        job.run,
        job.job,
        job.source,
        job.audio,
        job.output,
        fps=fps,
        preparing=told,
        progress=progress,
        kept=kept,
    )


def _now_and_then(prepares: Callable[[], None]) -> Told:
    """Tells of what makes no frame at most every second, however often it is called."""
    told_at = -TELL_S

    def told(_: object) -> None:
        nonlocal told_at
        if (now := time.monotonic()) - told_at >= TELL_S:
            told_at = now
            prepares()

    return told


def _done(job: BatchJob, report: Report, seconds: float) -> Json:
    return {
        "state": DONE,
        "output_bytes": job.output.stat().st_size,
        "output_sha256": digest_of([job.output]),
        "seconds": round(seconds, 3),
        "figures": _figures(report),
    }


def _figures(report: Report) -> Json:
    return {name: getattr(report, name) for name in FIGURES}


def _told(error: Exception) -> MuseTalkError:
    if isinstance(error, MuseTalkError):
        return error
    return out_of_memory() if is_out_of_memory(error) else MuseTalkError(f"Unforeseen: {describe(error)}.")


def _is_infrastructure(error: Exception) -> bool:
    """True for what another worker may be spared: a device that failed, or a lack of memory."""
    accelerator = getattr(torch, "AcceleratorError", DeviceError)
    return isinstance(error, DeviceError | accelerator) or is_out_of_memory(error)
