"""A piece of a job whose sound is split, as it is told to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from musetalk_cli.run.batch.job import Json

Kind = Literal["survey", "part", "join"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one worker does at once of a job whose sound is split.

    Attributes:
        kind: Find where it is cut; make the pictures of a part; join them with the sound.
        share: Share of the job's frames that are made, 0..1.
        number: Of the part, from 0.
        first: First frame of the part.
        stop: One past its last.
        fps: Frames per second, exactly; empty before the survey.
        over_s: For the survey, the seconds over which a sound is split.
        most: For the survey, parts at the most.
        paths: The file of the part, or those of all parts.
        frames: To join, the frames of each part.
    """

    kind: Kind
    share: float = 0.0
    number: int = 0
    first: int = 0
    stop: int = 0
    fps: str = ""
    over_s: float = 0.0
    most: int = 0
    paths: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()

    def to_json(self) -> Json:
        """All of it as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Piece:
        """What `to_json` gave, which no stranger writes."""
        return cls(**{**data, "paths": tuple(data["paths"]), "frames": tuple(data["frames"])})
