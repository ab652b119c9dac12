"""What an avatar is: its description on disk, and its pictures in memory."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import cv2

from musetalk_cli.errors import AvatarError
from musetalk_cli.types import Box, Image

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
"""Version of our folder; another one is refused."""
LATENT_SHAPE = (8, 32, 32)
"""Masked and reference latents of one face, joined on channels."""
FACE_SIZE = 256
"""Side of the face the networks see."""
MAX_FRAMES = 1_000_000
MAX_SIDE = 16_384

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_RATE = re.compile(r"\d{1,9}(\.\d{1,17}|/\d{1,9})?")
_KEYS = ("format", "name", "fps", "width", "height", "frames", "boxes", "crop_boxes", "parameters", "model",
         "source", "skipped_frames")  # fmt: skip
_LATENT_BYTES = 4 * math.prod(LATENT_SHAPE)

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]


def is_name(name: str) -> bool:
    """True where the text can name an avatar."""
    return _NAME.fullmatch(name) is not None


def validate_name(name: str) -> str:
    """The name, where it can name a folder inside the avatars' folder.

    Raises:
        AvatarError: It could leave that folder, or holds anything but letters, digits, `.`, `_` and `-`.
    """
    if not is_name(name):
        raise AvatarError(
            f"{name!r} is not an avatar's name: a name that leaves its folder is refused.",
            "Use up to 64 letters, digits, '.', '_' and '-', starting with a letter, a digit or '_'.",
        )
    return name


@dataclass(frozen=True, slots=True)
class AvatarMeta:
    """The description that lies in `avatar.json`.

    Attributes:
        name: Name of the avatar and of its folder.
        fps: Frames per second of the source.
        width: Columns of every frame.
        height: Rows of every frame.
        boxes: The face's box in every forward frame, inside the frame.
        crop_boxes: The crop's box in every forward frame; may leave the frame.
        parameters: How it was prepared: `bbox_shift`, `extra_margin`, `mask`, `smooth` and the like.
        model: What the latents were made for, with at least `version` (`v15` or `v1`).
        source: What it was made from: `name` and `sha256`.
        skipped_frames: Numbers of the source frames that had no face and are not part of the avatar.
    """

    name: str
    fps: Fraction
    width: int
    height: int
    boxes: tuple[Box, ...]
    crop_boxes: tuple[Box, ...]
    parameters: Mapping[str, Json]
    model: Mapping[str, Json]
    source: Mapping[str, Json]
    skipped_frames: tuple[int, ...] = ()

    @property
    def frames(self) -> int:
        """Number of forward frames."""
        return len(self.boxes)

    @property
    def face_scale(self) -> float:
        """Median height of the face's box over the 256 rows the networks give; above 1 it is enlarged."""
        return statistics.median(box.height for box in self.boxes) / FACE_SIZE

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
            "skipped_frames": self.skipped_frames,
            "boxes": self.boxes,
            "crop_boxes": self.crop_boxes,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> AvatarMeta:
        """Read the content of `avatar.json`.

        Raises:
            AvatarError: It is not JSON, or a value is missing, of the wrong kind, or out of range.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise AvatarError(f"avatar.json is not JSON: {error}.", _AGAIN) from None
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
        count = _whole(data, "frames", 1, MAX_FRAMES)
        width, height = _whole(data, "width", 1, MAX_SIDE), _whole(data, "height", 1, MAX_SIDE)
        meta = cls(
            name=_name(data["name"]),
            fps=_fps(data["fps"]),
            width=width,
            height=height,
            boxes=_boxes(data, "boxes", count),
            crop_boxes=_boxes(data, "crop_boxes", count),
            parameters=_mapping(data, "parameters"),
            model=_mapping(data, "model"),
            source=_mapping(data, "source"),
            skipped_frames=_numbers(data["skipped_frames"]),
        )
        if not isinstance(meta.model.get("version"), str):
            raise AvatarError("avatar.json does not say the version of its model.", _AGAIN)
        frame = Box(0, 0, width, height)
        for number, (box, crop) in enumerate(zip(meta.boxes, meta.crop_boxes, strict=True)):
            if box.intersect(frame) != box:
                raise AvatarError(f"Box {number} of avatar.json, {list(box)}, leaves the frame.", _AGAIN)
            if crop.intersect(frame).empty:
                raise AvatarError(f"Crop box {number} of avatar.json lies outside the frame.", _AGAIN)
        return meta


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The region of a frame that can change: where the mask is not zero and the face lies.

    Attributes:
        box: The region in the frame: the smallest box around those pixels; one pixel at the face's corner
            where the mask is zero everywhere.
        face: Where the generated face goes, in the frame; holds `box`.
        mask: uint8 `[box.height, box.width]`, 0 keeps the frame, 255 takes the face.
    """

    box: Box
    face: Box
    mask: Image

    @classmethod
    def cut(cls, mask: Image, face: Box, crop: Box, frame: tuple[int, int]) -> Patch:
        """Cut the patch out of a crop's mask.

        Args:
            mask: uint8 `[crop.height, crop.width]`.
            face: The face's box, inside the frame.
            crop: The crop's box; may leave the frame.
            frame: Width and height of the frame.
        """
        region = crop.intersect(face).clamp(*frame)
        inside = mask[region.shift(-crop.x1, -crop.y1).slices()] if not region.empty else mask[:0]
        x, y, width, height = cv2.boundingRect(inside) if inside.size else (0, 0, 0, 0)
        if not width:
            return cls(Box(face.x1, face.y1, face.x1 + 1, face.y1 + 1), face, mask[:1, :1] * 0)
        box = Box(x, y, x + width, y + height)
        return cls(box.shift(region.x1, region.y1), face, inside[box.slices()].copy())


@dataclass(frozen=True, slots=True)
class AvatarMemory:
    """What a loaded avatar takes, in bytes.

    Attributes:
        device_bytes: Patches of the frames, their masks, and the latents.
        host_bytes: Full frames and masks.
    """

    device_bytes: int
    host_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Avatar:
    """An avatar in host memory; entry `i` of every list belongs to forward frame `i`.

    Attributes:
        meta: Its description.
        frames: uint8 `[height, width, 3]` each, BGR.
        patches: What can change in each frame.
        latents: float32 `[n, 8, 32, 32]`, masked and reference latents times the scaling factor.
    """

    meta: AvatarMeta
    frames: list[Image]
    patches: list[Patch]
    latents: Tensor

    def memory(self) -> AvatarMemory:
        """What the avatar takes on the device and on the host."""
        return memory_of(self.meta, self.patches)


def memory_of(meta: AvatarMeta, patches: Sequence[Patch]) -> AvatarMemory:
    """What an avatar takes, told without its pictures."""
    masks = sum(patch.mask.size for patch in patches)
    pictures = meta.frames * meta.width * meta.height * 3
    return AvatarMemory(4 * masks + meta.frames * _LATENT_BYTES, pictures + masks)


_AGAIN = "The avatar is broken; prepare or import it again."


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


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


def _boxes(data: Mapping[str, object], key: str, count: int) -> tuple[Box, ...]:
    value = data[key]
    if not isinstance(value, list) or len(value) != count:
        raise AvatarError(f"{key} in avatar.json is not a list of {count} boxes.", _AGAIN)
    return tuple(_box(key, number, entry) for number, entry in enumerate(value))


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


def _numbers(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(number) is int and number >= 0 for number in value):
        raise AvatarError("skipped_frames in avatar.json is not a list of frame numbers.", _AGAIN)
    return tuple(value)
