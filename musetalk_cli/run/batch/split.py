"""Long sounds that several workers share: which jobs are split, and how far each of these is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from musetalk_cli.errors import InputError
from musetalk_cli.media.audio import declared_seconds
from musetalk_cli.run.batch.dispatch import Attempt
from musetalk_cli.run.batch.job import BatchJob, Json
from musetalk_cli.run.batch.piece import Piece
from musetalk_cli.run.batch.results import DONE, failure
from musetalk_cli.sinks.checks import Partial
from musetalk_cli.timeline import parse_seconds

SPLIT_RANGE = (30, 86_400)
"""Seconds over which a sound is split: half of the shortest is half a window of the encoder."""
MOST_ASKED = 64
"""Jobs of which it is asked how many parts they could have; with more there is work for all workers."""
_SUMMED = ("frames", "idle_frames", "broken_frames", "remade_frames", "fallbacks", "duration_s")
_LARGEST = ("peak_host_bytes", "peak_device_bytes")


def parse_split(text: str | None) -> float | None:
    """Read the seconds over which a sound is split; None, and `off`, is never.

    Raises:
        InputError: It is neither `off` nor a number in 30..86400.
    """
    if text is None or text == "off":
        return None
    seconds = parse_seconds(text, "--split-over")
    least, most = SPLIT_RANGE
    if not least <= seconds <= most:
        raise InputError(f"--split-over {text} is outside {least}..{most} s.", "600 is a good start.")
    return float(seconds)


def most_workers(jobs: Sequence[BatchJob], over_s: float | None) -> int:
    """For how many workers there is work at once: a job is for one, a long sound for one a part."""
    if over_s is None or len(jobs) > MOST_ASKED:
        return len(jobs)
    return sum(max(1, math.ceil((declared_seconds(job.audio) or 0) / over_s)) for job in jobs)


@dataclass(slots=True)
class _Split:
    """A job that was begun in pieces.

    Attributes:
        job: The job.
        begun: Monotonic seconds at which it was.
        inputs: Digests of what it reads, as it was begun.
        folder: Where its parts are; None before there are some.
        parts: Its parts, in their order.
        paths: The file of each, of its last try.
        made: Figures of those that are made, by their numbers.
        busy: Its pieces that somebody is at.
        tries: How often one of them was begun, the most.
        failure: What it failed with; or None.
    """

    job: BatchJob
    begun: float
    inputs: dict[str, str] = field(default_factory=dict)
    folder: Partial | None = None
    parts: list[Piece] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)
    made: dict[int, Json] = field(default_factory=dict)
    busy: int = 0
    tries: int = 1
    failure: Json | None = None


class Splits:
    """The jobs of a run that are split; parts lie in a hidden folder beside the output until they are joined.

    Args:
        over_s: Seconds over which a sound is split; None is never.
    """

    def __init__(self, over_s: float | None) -> None:
        self._over_s = over_s
        self._splits: dict[Path, _Split] = {}

    @property
    def shares(self) -> dict[Path, float]:
        """For each job that is begun in pieces the share of its frames that are made by those that ended."""
        return {
            output: sum(split.parts[number].share for number in split.made)
            for output, split in self._splits.items()
        }

    def begin(self, attempt: Attempt, sharers: Callable[[], int]) -> Attempt:
        """Begin an attempt; what is begun in place of a job is to find where it is cut.

        Args:
            attempt: What was to be begun.
            sharers: How many workers can share a job.
        """
        over_s, piece = self._over_s, attempt.piece
        if over_s is not None and piece is None and attempt.number == 1 and (most := sharers()) > 1:
            attempt = replace(attempt, piece=Piece("survey", over_s=over_s, most=most))
        if attempt.piece is not None:
            job = attempt.job
            split = self._splits.setdefault(job.output, _Split(job, time.monotonic()))
            split.busy += 1
            split.tries = max(split.tries, attempt.number)
        return attempt

    def task(self, attempt: Attempt, inputs: dict[str, str]) -> Json:
        """What a worker is told of an attempt that was begun.

        Raises:
            InputError: What the job reads is not what it was as its first piece was begun.
        """
        piece = attempt.piece
        if piece is None:
            return attempt.job.to_json()
        split = self._splits[attempt.job.output]
        split.inputs = split.inputs or inputs
        if inputs != split.inputs:
            raise InputError("The sound, the avatar or the model has changed meanwhile.", "Do the job again.")
        if piece.kind == "part" and split.folder is not None:
            # a name of its own for each try: a worker that is taken for lost may still write
            path = str(split.folder.path / f"{piece.number}-{attempt.number}.mp4")
            split.paths[piece.number] = path
            piece = replace(piece, paths=(path,))
        return attempt.job.to_json() | {"piece": piece.to_json()}

    def lose(self, attempt: Attempt) -> None:
        """The worker of a piece is gone, and it is to be tried again."""
        self._splits[attempt.job.output].busy -= 1

    def end(self, attempt: Attempt, answer: Json) -> list[Attempt]:
        """A piece has ended; the pieces that come next, or the whole job where it is not split."""
        split, piece = self._splits[attempt.job.output], attempt.piece
        split.busy -= 1
        if answer["state"] != DONE:
            split.failure = split.failure or answer
        if split.failure is not None or piece is None:
            return []
        if piece.kind == "survey":
            return self._cut(split, answer["cuts"], answer["fps"])
        if piece.kind == "part":
            split.made[piece.number] = answer["figures"]
            if len(split.made) == len(split.parts):
                paths = tuple(split.paths[part.number] for part in split.parts)
                frames = tuple(part.stop - part.first for part in split.parts)
                return [Attempt(split.job, piece=Piece("join", fps=piece.fps, paths=paths, frames=frames))]
        return []

    def _cut(self, split: _Split, cuts: list[int], fps: str) -> list[Attempt]:
        if len(cuts) == 2:
            del self._splits[split.job.output]
            return [Attempt(split.job)]
        split.folder = Partial(split.job.output.parent)
        try:
            split.folder.make(folder=True)
        except OSError as error:
            split.failure = failure(f"{split.job.output} cannot be written: {error.strerror}.", None)
            return []
        split.parts = [
            Piece("part", (stop - first) / cuts[-1], number, first, stop, fps)
            for number, (first, stop) in enumerate(pairwise(cuts))
        ]
        return [Attempt(split.job, piece=part) for part in split.parts]

    def has_failed(self, job: BatchJob) -> bool:
        """True where a job is begun in pieces, and one has failed: the others are of no use."""
        split = self._splits.get(job.output)
        return split is not None and split.failure is not None

    def conclude(self, attempt: Attempt, answer: Json) -> tuple[Attempt, dict[str, str], Json] | None:
        """How a job has ended of which a piece has; None while it goes on.

        Returns:
            The job, with the most tries of a piece; its inputs; and its answer, as of one in one piece.
        """
        split, piece = self._splits.get(attempt.job.output), attempt.piece
        if split is None or piece is None or split.busy:
            return None
        is_joined = piece.kind == "join" and answer.get("state") == DONE
        if split.failure is None and not is_joined:
            return None
        del self._splits[attempt.job.output]
        if split.folder is not None:
            split.folder.remove()
        result = split.failure or (answer | _figures(split))
        return Attempt(split.job, split.tries), split.inputs, result

    def close(self) -> None:
        """Remove the parts of jobs that were not finished."""
        for split in self._splits.values():
            if split.folder is not None:
                split.folder.remove()
        self._splits.clear()


def _figures(split: _Split) -> Json:
    """What is told of a job in one piece, of all parts together."""
    seconds, parts = time.monotonic() - split.begun, list(split.made.values())
    figures = dict(parts[0])
    figures |= {name: sum(part[name] for part in parts) for name in _SUMMED}
    figures |= {name: max(part[name] or 0 for part in parts) or None for name in _LARGEST}
    figures["throughput_fps"] = figures["frames"] / seconds
    figures["real_time_factor"] = seconds / figures["duration_s"]
    figures["parts"] = len(parts)
    return {"seconds": round(seconds, 3), "figures": figures}
