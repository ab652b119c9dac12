"""The landmarks of a face, how they are found, and the file that a user reads, corrects and brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from musetalk_cli import strict_json
from musetalk_cli.budget import check_budget
from musetalk_cli.errors import InputError
from musetalk_cli.face.boxes import POINTS
from musetalk_cli.strict_json import JsonError
from musetalk_cli.types import Box, Image

_MAX_BYTES = 1 << 29
_MEMORY_PER_BYTE = 24
"""Bytes of memory that a byte of JSON takes once read, at most: `[],` is a list and its place in another."""
_LIMIT = 1e6
_ENTRY = '{"points": [[x, y] x 68], "box": [x1, y1, x2, y2] or null}, or null'


@dataclass(frozen=True, slots=True, eq=False)
class FaceLandmarks:
    """The face of one frame.

    Attributes:
        points: float64 `[68, 2]`, x and y in pixels of the frame, in the 68-point order.
        detection: The face detector's box, or None where it saw no face.
        confidence: float32 `[68]`, how sure the network is of each point; None where nothing tells.
    """

    points: NDArray[np.float64]
    detection: Box | None
    confidence: NDArray[np.float32] | None = None


class Finder(Protocol):
    """What finds the faces of a frame.

    Attributes:
        name: What `avatar.json` records.
        batch: Frames that are passed at once; only the last call of a clip has fewer.
        sees_mouth: True where the points follow the mouth.
        cutoff_hz: How fast a motion may be that smoothing keeps, in Hz.
    """

    name: str
    batch: int
    sees_mouth: bool
    cutoff_hz: float

    def find(self, frames: Sequence[Image], previous: Sequence[FaceLandmarks]) -> list[list[FaceLandmarks]]:
        """The faces of each frame, with points to a hundredth of a pixel.

        The result depends on the arguments alone, so that finding can stop and go on anywhere between calls.

        Args:
            frames: uint8 `[height, width, 3]` each, BGR.
            previous: The faces of the frame before the first one; none at the start of a clip.
        """


def read_landmarks(path: Path) -> list[FaceLandmarks | None]:
    """Read a landmarks file: a JSON list with one entry per frame, None where there is no face.

    Raises:
        InputError: The file cannot be read, or an entry is not what it must be.
    """
    try:
        check_budget(_MEMORY_PER_BYTE * path.stat().st_size, str(path), InputError)
        entries = strict_json.read(path, _MAX_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except JsonError as error:
        raise InputError(f"{path} {error}.", f"It must be a list of {_ENTRY}.") from None
    if not isinstance(entries, list):
        raise InputError(f"{path} is not a list.", f"It must be a list of {_ENTRY}, one per frame.")
    return [_entry(path, number, entry) for number, entry in enumerate(entries)]


def landmarks_text(faces: Sequence[FaceLandmarks | None]) -> str:
    """The text of a landmarks file that `read_landmarks` reads, one entry a line."""
    lines = (
        "null"
        if face is None
        else strict_json.dump(
            {"points": face.points.tolist(), "box": face.detection and list(face.detection)}
        )
        for face in faces
    )
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _entry(path: Path, number: int, entry: object) -> FaceLandmarks | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or set(entry) - {"box"} != {"points"}:
        raise _wrong(path, number, "must have points and box and nothing else", f"An entry is {_ENTRY}.")
    points = _numbers(entry["points"])
    if points is None or points.shape != (POINTS, 2):
        shape = "" if points is None else f", not {' x '.join(map(str, points.shape))} of them"
        raise _wrong(path, number, f"needs {POINTS} points of two numbers{shape}", f"An entry is {_ENTRY}.")
    if not np.isfinite(points).all() or np.abs(points).max() > _LIMIT:
        worst = int(np.argmax((~np.isfinite(points) | (np.abs(points) > _LIMIT)).any(axis=1)))
        raise _wrong(
            path, number, f"has a point {worst} that is not finite or not in any frame", "Use pixels."
        )
    return FaceLandmarks(points, _detection(path, number, entry.get("box")))


def _detection(path: Path, number: int, value: object) -> Box | None:
    if value is None:
        return None
    sides = _numbers(value)
    if sides is None or sides.shape != (4,) or not np.isfinite(sides).all() or np.abs(sides).max() > _LIMIT:
        raise _wrong(path, number, "needs four finite numbers in box", "A box is [x1, y1, x2, y2] or null.")
    box = Box(*(int(side) for side in sides))
    if box.empty:
        raise _wrong(path, number, f"has an empty box {list(box)}", "A box is [x1, y1, x2, y2] or null.")
    return box


def _numbers(value: object) -> NDArray[np.float64] | None:
    """A nested list of numbers as an array; None where it is anything else or ragged."""
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value)
    except (ValueError, OverflowError):
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def _wrong(path: Path, number: int, what: str, hint: str) -> InputError:
    return InputError(f"Entry {number} of {path} {what}.", hint)
