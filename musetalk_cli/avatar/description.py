"""What an avatar is on disk: the description that lies in `avatar.json`."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from musetalk_cli import strict_json
from musetalk_cli.avatar.names import validate_name
from musetalk_cli.errors import AvatarError
from musetalk_cli.strict_json import JsonError
from musetalk_cli.types import FACE_SIZE, Box

FORMAT = 1
"""Version of our folder; another one is refused."""
MAX_FRAMES = 50_000
"""Half an hour at 25 fps, so that a description always fits `MAX_META_BYTES`."""
MAX_META_BYTES = 8 << 20
MAX_SIDE = 16_384

_DIGEST = re.compile(r"[0-9a-f]{64}")
_RATE = re.compile(r"\d{1,9}(\.\d{1,17}|/\d{1,9})?")
_KEYS = ("format", "name", "fps", "width", "height", "frames", "boxes", "crop_boxes", "parameters", "model",
         "source")  # fmt: skip
_AGAIN = "The avatar is broken; prepare or import it again."

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True, slots=True)
class AvatarMeta:
    """The description that lies in `avatar.json`.

    A frame without a face is a pass-through frame: it has neither box, and is shown as it is.

    Attributes:
        name: Name of the avatar and of its folder.
        fps: Frames per second of the source.
        width: Columns of every frame.
        height: Rows of every frame.
        boxes: The face's box in every forward frame, inside the frame; None for a pass-through frame.
        crop_boxes: The crop's box in every forward frame; may leave the frame; None where `boxes` is.
        parameters: How it was prepared: `bbox_shift`, `extra_margin`, `mask`, `smooth` and the like.
        model: What the latents were made for, with at least `version` (`v15` or `v1`).
        source: What it was made from: `name` and `sha256`.
        rest_frames: Numbers of frames with a closed mouth, ascending, on which silence can rest.
        idle_frames: Frames of the idle clip, which has the size of the other frames; 0 where there is none.
        report: What preparation found.
        latents_sha256: SHA-256 of the file of latents, in hexadecimal, as a damaged number is a number still;
            None where it was not kept.
    """

    name: str
    fps: Fraction
    width: int
    height: int
    boxes: tuple[Box | None, ...]
    crop_boxes: tuple[Box | None, ...]
    parameters: Mapping[str, Json]
    model: Mapping[str, Json]
    source: Mapping[str, Json]
    rest_frames: tuple[int, ...] = ()
    idle_frames: int = 0
    report: Mapping[str, Json] = field(default_factory=dict)
    latents_sha256: str | None = None

    @property
    def frames(self) -> int:
        """Number of forward frames."""
        return len(self.boxes)

    @property
    def passthrough_frames(self) -> tuple[int, ...]:
        """Numbers of the frames without a face, ascending."""
        return tuple(number for number, box in enumerate(self.boxes) if box is None)

    @property
    def face_scale(self) -> float:
        """Median height of the faces' boxes over the 256 rows the networks give; above 1 it is enlarged."""
        return statistics.median(box.height for box in self.boxes if box is not None) / FACE_SIZE

    def to_json(self) -> str:
        """The content of `avatar.json`."""
        fields = {
            "format": FORMAT,
            "name": self.name,
            "fps": int(self.fps) if self.fps.denominator == 1 else str(self.fps),
            "width": self.width,
            "height": self.height,
            "frames": self.frames,
            "parameters": self.parameters,
            "model": self.model,
            "source": self.source,
            "rest_frames": self.rest_frames,
            "idle_frames": self.idle_frames,
            "report": self.report,
            "latents_sha256": self.latents_sha256,
            "boxes": self.boxes,
            "crop_boxes": self.crop_boxes,
        }
        lines = [f"  {strict_json.dump(key)}: {strict_json.dump(value)}" for key, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> AvatarMeta:
        """Read the content of `avatar.json`; keys it does not know are ignored.

        Raises:
            AvatarError: It is not JSON, or a value is missing, of the wrong kind, or out of range.
        """
        data = _read(text)
        count = _whole(data, "frames", 1, MAX_FRAMES)
        meta = cls(
            name=_name(data["name"]),
            fps=_fps(data["fps"]),
            width=_whole(data, "width", 1, MAX_SIDE),
            height=_whole(data, "height", 1, MAX_SIDE),
            boxes=_boxes(data, "boxes", count),
            crop_boxes=_boxes(data, "crop_boxes", count),
            parameters=_mapping(data, "parameters"),
            model=_mapping(data, "model"),
            source=_mapping(data, "source"),
            rest_frames=_numbers(data, "rest_frames", count),
            idle_frames=_whole(data, "idle_frames", 0, MAX_FRAMES),
            report=_mapping(data, "report"),
            latents_sha256=_digest(data, "latents_sha256"),
        )
        if not isinstance(meta.model.get("version"), str):
            raise AvatarError("avatar.json does not say the version of its model.", _AGAIN)
        for number in range(count):
            _check_boxes(meta, number)
        if len(meta.passthrough_frames) == count:
            raise AvatarError("No frame of avatar.json has a face.", _AGAIN)
        return meta


def _read(text: str | bytes) -> Mapping[str, object]:
    """The object in `avatar.json`, with every key we read, where it has our version."""
    try:
        data = strict_json.parse(text)
    except JsonError as error:
        raise AvatarError(f"avatar.json {error}.", _AGAIN) from None
    if not isinstance(data, dict):
        raise AvatarError("avatar.json is not an object.", _AGAIN)
    if missing := [key for key in _KEYS if key not in data]:
        raise AvatarError(f"avatar.json lacks {', '.join(missing)}.", _AGAIN)
    version = data["format"]
    if type(version) is not int or version != FORMAT:
        raise AvatarError(
            f"avatar.json has the format version {_short(version)}, not {FORMAT}.",
            "Prepare or import the avatar again with this version.",
        )
    return {"rest_frames": [], "idle_frames": 0, "report": {}, "latents_sha256": None} | data


def _check_boxes(meta: AvatarMeta, number: int) -> None:
    """Refuse a frame that has one box only, or one whose boxes do not lie where they must."""
    box, crop, frame = meta.boxes[number], meta.crop_boxes[number], Box(0, 0, meta.width, meta.height)
    if (box is None) != (crop is None):
        raise AvatarError(f"Frame {number} of avatar.json has one of box and crop box, not both.", _AGAIN)
    if box is not None and box.intersect(frame) != box:
        raise AvatarError(f"Box {number} of avatar.json, {list(box)}, leaves the frame.", _AGAIN)
    if crop is not None and crop.intersect(frame).empty:
        raise AvatarError(f"Crop box {number} of avatar.json lies outside the frame.", _AGAIN)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _name(value: object) -> str:
    if not isinstance(value, str):
        raise AvatarError("The name in avatar.json is not a text.", _AGAIN)
    return validate_name(value)


def _whole(data: Mapping[str, object], key: str, low: int, high: int) -> int:
    value = data[key]
    if type(value) is not int or not low <= value <= high:
        raise AvatarError(f"{key} in avatar.json is {_short(value)}, not whole and in {low}..{high}.", _AGAIN)
    return value


def _fps(value: object) -> Fraction:
    try:
        fps = Fraction(value) if _RATE.fullmatch(value := str(value)) else Fraction(0)
    except ZeroDivisionError:
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise AvatarError(f"fps in avatar.json is {_short(value)}, not a rate in 0..1000.", _AGAIN)
    return fps


def _boxes(data: Mapping[str, object], key: str, count: int) -> tuple[Box | None, ...]:
    value = data[key]
    if not isinstance(value, list) or len(value) != count:
        raise AvatarError(f"{key} in avatar.json is not a list of {count} boxes.", _AGAIN)
    return tuple(None if entry is None else _box(key, number, entry) for number, entry in enumerate(value))


def _box(key: str, number: int, value: object) -> Box:
    sides = value if isinstance(value, list) and len(value) == 4 else []
    whole = [side for side in sides if type(side) is int and abs(side) <= 2 * MAX_SIDE]
    if len(whole) != 4 or Box(*whole).empty:
        raise AvatarError(
            f"Entry {number} of {key} in avatar.json, {_short(value)}, is not [x1, y1, x2, y2].", _AGAIN
        )
    return Box(*whole)


def _mapping(data: Mapping[str, object], key: str) -> Mapping[str, Json]:
    value = data[key]
    if not isinstance(value, dict):
        raise AvatarError(f"{key} in avatar.json is not an object.", _AGAIN)
    return value


def _digest(data: Mapping[str, object], key: str) -> str | None:
    value = data[key]
    if value is None or (isinstance(value, str) and _DIGEST.fullmatch(value)):
        return value
    raise AvatarError(f"{key} in avatar.json is {_short(value)}, not 64 digits in hexadecimal.", _AGAIN)


def _numbers(data: Mapping[str, object], key: str, count: int) -> tuple[int, ...]:
    value = data[key]
    numbers = value if isinstance(value, list) else [None]
    whole = [number for number in numbers if type(number) is int and 0 <= number < count]
    if len(whole) != len(numbers) or whole != sorted(set(whole)):
        raise AvatarError(
            f"{key} in avatar.json is not an ascending list of frames in 0..{count - 1}.", _AGAIN
        )
    return tuple(whole)
