"""A recording in parts: where it is cut, and the pictures of one part of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from musetalk_cli.config import JobConfig, RunConfig, SilenceLevel
from musetalk_cli.engine.hearing import Hearing
from musetalk_cli.engine.hops import HopGrid, HopPlanner
from musetalk_cli.engine.part import Part
from musetalk_cli.engine.windows import OFFLINE_HOP, FeatureStream
from musetalk_cli.errors import InputError
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.run.defaults import settle
from musetalk_cli.run.generate import FileProgress, speak
from musetalk_cli.run.kept import Kept
from musetalk_cli.run.report import Report
from musetalk_cli.sinks.parts import PartSink, joins_exactly
from musetalk_cli.timeline import Timeline, ceil_div

IDLE_COST = 0.05
"""What a frame costs in which nothing is made, against one that is: it is coded like all others."""
SHORTEST_FRAMES = 16
"""Fewest frames of a part: more than a picture codec holds back."""
_SEARCHED = 4
"""A cut is moved to silence within this share of a part, before and after."""


def find_cuts(
    audio: Path, job: JobConfig, over_s: float, most: int, told: Callable[[], None] = lambda: None
) -> list[int]:
    """Where a recording is cut into parts of about equal work, at silences where these are near.

    It is heard as a session hears it, which decides how many frames there are and what is said in each.

    Args:
        audio: Any file with an audio stream.
        job: How it is spoken.
        over_s: Seconds; a longer recording is cut, into one part for each so many, begun ones counted.
        most: Parts at the most.
        told: Called now and then.

    Returns:
        Frames, ascending: 0, where parts begin, and how many there are. Two where it stays whole.

    Raises:
        InputError: The sound cannot be read.
    """
    weights = _weights(audio, Timeline(job.fps, job.alignment), job.silence or SilenceLevel(), told)
    parts = min(most, ceil_div(Fraction(len(weights)) / job.fps, Fraction(over_s)))
    if parts < 2 or not joins_exactly(job.fps):
        return [0, len(weights)]
    costs = [1.0 if job.silence is None or weight else IDLE_COST for weight in weights]
    return _cut(weights, costs, parts)


def speak_part(
    run: RunConfig,
    job: JobConfig,
    avatar: str,
    audio: Path,
    part: Part,
    path: Path,
    output: Path,
    *,
    progress: FileProgress | None = None,
    kept: Kept | None = None,
    rests: bool = True,
) -> Report:
    """Make the pictures of a part, as `generate` makes those of the whole.

    Args:
        run: Where things are and what computes.
        job: As for `generate`.
        avatar: Name of the avatar.
        audio: The whole recording.
        part: Which frames.
        path: The file to write, for `sinks.parts.join`.
        output: The video that it becomes a part of.
        progress: Told of the frames made and all of the part.
        kept: What stays loaded.
        rests: As for `generate`.

    Raises:
        InputError: The sound cannot be used, or has not so many frames.
        MuseTalkError: Model, avatar, device or output cannot be used.
    """
    frames = (part.stop or 0) - part.first
    sinks = [PartSink(path, output)]
    run = settle(run, avatar)
    report = speak(run, job, avatar, audio, sinks, frames, None, progress, kept, rests=rests, part=part)
    if report.frames != frames:
        raise InputError(f"{audio} has changed since it was cut into parts.", "Do the job again.")
    return report


def _weights(audio: Path, timeline: Timeline, level: SilenceLevel, told: Callable[[], None]) -> bytearray:
    """For each frame whether something is said in it: 0 or 1."""
    said = bytearray()
    with SoundReader(audio) as reader:
        grid = HopGrid(OFFLINE_HOP, OFFLINE_HOP)
        planner = HopPlanner(timeline, level, grid, restarts=False)
        features = FeatureStream(timeline, Fraction(0))
        hearing = Hearing(timeline, features, planner, reader.sample_rate, reader.channels)

        def plan() -> None:
            while (hop := hearing.due()) is not None:
                said.extend(speech.weight > 0 for speech in hop.speech)
                hearing.sounds(hop)
                hearing.plan(hop, made=False)

        for block in reader.blocks(reader.sample_rate):
            hearing.hear(block, 0.0)
            plan()
            told()
        hearing.end(0.0)
        plan()
    return said


def _cut(weights: Sequence[int], costs: Sequence[float], parts: int) -> list[int]:
    spent = [0.0, *accumulate(costs)]
    cuts = [0]
    reach = len(weights) // (_SEARCHED * parts)
    for number in range(1, parts):
        share = spent[-1] * number / parts
        even = bisect_left(spent, share)
        near = (frame for frame in range(even - reach, even + reach) if _is_silent(weights, frame))
        frame = min(near, key=lambda silent: abs(silent - even), default=even)
        if frame - cuts[-1] >= SHORTEST_FRAMES and len(weights) - frame >= SHORTEST_FRAMES:
            cuts.append(frame)
    return [*cuts, len(weights)]


def _is_silent(weights: Sequence[int], frame: int) -> bool:
    """True where a part that begins with a frame begins in silence, and so ends the one before it."""
    return 0 < frame < len(weights) and not weights[frame - 1] and not weights[frame]
