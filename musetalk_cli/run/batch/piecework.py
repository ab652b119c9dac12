"""What a worker does with a piece of a job whose sound is split."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from musetalk_cli.config import JobConfig, RunConfig
from musetalk_cli.engine.part import Part
from musetalk_cli.media.digest import digest_of
from musetalk_cli.run.batch.job import BatchJob, Json
from musetalk_cli.run.batch.piece import Piece
from musetalk_cli.run.dub import own_rate, prepared
from musetalk_cli.run.generate import FileProgress
from musetalk_cli.run.kept import Kept
from musetalk_cli.run.parts import find_cuts, speak_part
from musetalk_cli.run.report import Report
from musetalk_cli.sinks.parts import CodedPart, join

Told = Callable[[object], None]
"""Called now and then while something is done that makes no frame."""


def survey(job: BatchJob, piece: Piece, told: Told) -> Json:
    """Where the sound is cut, and the frame rate; the face of a source is prepared for all parts."""
    with _face(job, "", told) as (_, how, _):
        cuts = find_cuts(job.audio, how, piece.over_s, piece.most, lambda: told(None))
        return {"cuts": cuts, "fps": str(how.fps)}


def make_part(job: BatchJob, piece: Piece, kept: Kept, progress: FileProgress | None, told: Told) -> Report:
    """The pictures of a part."""
    part, path = Part(piece.first, piece.stop), Path(piece.paths[0])
    with _face(job, piece.fps, told) as (run, how, name):
        return speak_part(
            run,
            how,
            name,
            job.audio,
            part,
            path,
            job.output,
            progress=progress,
            kept=kept,
            rests=job.source is None,
        )


def join_parts(job: BatchJob, piece: Piece, told: Told) -> Json:
    """The video, of its parts and the sound."""
    parts = [CodedPart(Path(path), frames) for path, frames in zip(piece.paths, piece.frames, strict=True)]
    join(parts, job.audio, job.output, Fraction(piece.fps), lambda: told(None))
    return {"output_bytes": job.output.stat().st_size, "output_sha256": digest_of([job.output])}


@contextmanager
def _face(job: BatchJob, fps: str, told: Told) -> Iterator[tuple[RunConfig, JobConfig, str]]:
    """Who speaks, and how: an avatar, or what a source was prepared to."""
    how = replace(job.job, fps=Fraction(fps)) if fps else job.job
    if job.source is None:
        yield job.run, how, job.avatar
        return
    with prepared(job.run, job.source, told) as (run, name):
        if not fps and job.own_rate:
            how = replace(how, fps=own_rate(run, name, job.source))
        yield run, how, name
