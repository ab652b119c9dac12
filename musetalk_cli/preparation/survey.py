"""The one pass over the source: every frame goes to disk, and the faces in it are found."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from musetalk_cli.avatar.description import Json
from musetalk_cli.avatar.layout import FRAMES_DIR, image_name
from musetalk_cli.budget import check_budget
from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import FaceLandmarks, Finder
from musetalk_cli.face.motion import difference, thumbnail
from musetalk_cli.handoff import ahead, batches, side_by_side
from musetalk_cli.measure.throughput import StageRates
from musetalk_cli.media.stills import read_image, write_png
from musetalk_cli.media.video import VideoFrames
from musetalk_cli.preparation.journal import Journal
from musetalk_cli.types import Box, Image

SURVEY_FILE = "survey.jsonl"
WORKERS = max(2, min(8, (os.cpu_count() or 1) // 2))
"""Threads that compress or read frames."""

_IN_FLIGHT = 64 << 20
_END = "end"


@dataclass(slots=True)
class Survey:
    """What is known of the source; entry `i` of every list belongs to frame `i`.

    Attributes:
        faces: The faces that were found in each frame.
        differences: How much each frame differs from the one before it, in levels; 0 for the first.
        complete: True once the source's last frame is among them.
    """

    faces: list[list[FaceLandmarks]] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)
    complete: bool = False


def queue_size(width: int, height: int) -> int:
    """Frames that may wait between two stages: of small ones more, of large ones at least two."""
    return max(2, min(16, _IN_FLIGHT // (width * height * 3)))


class Surveyor:
    """Surveys a source, and goes on where an interrupted survey in the same folder stopped.

    Args:
        folder: Folder of the avatar in the making.
        finder: Finds the faces; None where they are known already.
        rates: Told what each stage takes.
    """

    def __init__(self, folder: Path, finder: Finder | None, rates: StageRates) -> None:
        self._folder = folder
        self._finder = finder
        self._rates = rates
        self._batch = finder.batch if finder else 1

    def known(self) -> Survey:
        """What an earlier, interrupted survey found: whole batches, or everything."""
        survey = Survey()
        try:
            with Journal(self._folder / SURVEY_FILE) as journal:
                for record in journal.read():
                    self._note(survey, record)
                if not survey.complete:
                    whole = len(survey.faces) // self._batch * self._batch
                    del survey.faces[whole:], survey.differences[whole:]
                    for _ in journal.read(keep=whole):
                        pass
        except (KeyError, TypeError, ValueError, IndexError):
            (self._folder / SURVEY_FILE).unlink()
            return Survey()
        return survey

    def run(self, survey: Survey, video: VideoFrames, progress: Callable[[int], None]) -> None:
        """Take the frames that are left.

        Args:
            survey: What `known` gave; completed here.
            video: The source from frame `len(survey.faces)` on.
            progress: Told how many frames are done.

        Raises:
            InputError: The source turns out damaged, or its frames take more memory than the budget.
            OutputError: A frame cannot be written.
        """
        capacity = queue_size(video.width, video.height)
        _check_memory(video.width, video.height, self._batch)
        with ExitStack() as stack:
            journal = stack.enter_context(Journal(self._folder / SURVEY_FILE))
            decoded = stack.enter_context(closing(ahead(self._rates.each("decode", video), capacity)))
            found = stack.enter_context(closing(ahead(self._find(decoded, survey), capacity)))
            written = stack.enter_context(closing(side_by_side(self._write, found, min(WORKERS, capacity))))
            for record in written:
                journal.append(record)
                self._note(survey, record)
                progress(len(survey.faces))
            journal.append(_END)
            survey.complete = True

    def _find(self, frames: Iterator[Image], survey: Survey) -> Generator[tuple[int, Image, dict[str, Json]]]:
        """Each frame with its number and its record."""
        number = len(survey.faces)
        before = survey.faces[-1] if number else []
        last = thumbnail(read_image(self._folder / FRAMES_DIR / image_name(number - 1))) if number else None
        for batch in batches(frames, self._batch):
            if self._finder is None:
                faces: list[list[FaceLandmarks]] = [[] for _ in batch]
            else:
                with self._rates.span("detect", len(batch)):
                    faces = self._finder.find(batch, before)
            for frame, there in zip(batch, faces, strict=True):
                small = thumbnail(frame)
                changed = 0.0 if last is None else difference(small, last)
                last = small
                record: dict[str, Json] = {"d": changed, "f": [_face_record(face) for face in there]}
                yield number, frame, record
                number += 1
            before = _faces_of(record)

    def _write(self, item: tuple[int, Image, dict[str, Json]]) -> dict[str, Json]:
        number, frame, record = item
        with self._rates.span("write"):
            write_png(self._folder / FRAMES_DIR / image_name(number), frame)
        return record

    @staticmethod
    def _note(survey: Survey, record: Any) -> None:  # noqa: ANN401 - whatever a line of JSON holds
        if record == _END:
            survey.complete = True
            return
        survey.faces.append(_faces_of(record))
        survey.differences.append(float(record["d"]))


def _check_memory(width: int, height: int, batch: int) -> None:
    """Refuse frames of which those that are on their way take more memory than the budget.

    Raises:
        InputError: They do.
    """
    capacity = queue_size(width, height)
    workers = min(WORKERS, capacity)
    # Those that wait before and behind the finder, one in each hand between, those that are searched at once,
    # those that are compressed, and what a worker makes of one, which noise leaves as large, and its copy.
    frames = 2 * capacity + 3 + batch + 2 * workers + 2 * workers
    check_budget(frames * width * height * 3, f"Preparing frames of {width}x{height}", InputError)


def check_count(source: Path, survey: Survey, landmarks: int) -> None:
    """Refuse landmarks of another clip.

    Raises:
        InputError: There is not one entry for every frame.
    """
    count = len(survey.faces)
    if count != landmarks:
        raise InputError(
            f"{source} has {count} frames, but there are landmarks for {landmarks}.",
            "The landmarks file must have one entry for every frame, null where there is no face.",
        )


def _face_record(face: FaceLandmarks) -> list[Json]:
    confidence = None if face.confidence is None else [round(float(value), 3) for value in face.confidence]
    return [
        face.points.ravel().tolist(),
        None if face.detection is None else list(face.detection),
        confidence,
    ]


def _faces_of(record: Any) -> list[FaceLandmarks]:  # noqa: ANN401 - whatever a line of JSON holds
    return [_face_of(*entry) for entry in record["f"]]


def _face_of(
    points: Sequence[float], box: Sequence[int] | None, confidence: Sequence[float] | None
) -> FaceLandmarks:
    return FaceLandmarks(
        np.array(points, np.float64).reshape(68, 2),
        None if box is None else Box(*box),
        None if confidence is None else np.array(confidence, np.float32),
    )
