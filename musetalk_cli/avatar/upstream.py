"""Import of avatars that MuseTalk or LiveTalking prepared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musetalk_cli import strict_json
from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.avatar.links import check_inside
from musetalk_cli.avatar.pickles import read_boxes
from musetalk_cli.avatar.upstream_latents import join_latents, load_latents
from musetalk_cli.avatar.writer import AvatarWriter
from musetalk_cli.budget import check_budget
from musetalk_cli.errors import AvatarError, InputError
from musetalk_cli.media.digest import digest_of
from musetalk_cli.media.stills import MAX_PIXELS, decode_image, header_size, is_image
from musetalk_cli.strict_json import JsonError
from musetalk_cli.timeline import DEFAULT_FPS, FPS_LIMITS, parse_fps
from musetalk_cli.types import Box, Image

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_PARTS = ("full_imgs", "mask", "coords.pkl", "mask_coords.pkl", "latents.pt", "avator_info.json")
_INFO_KEYS = ("avatar_id", "video_path", "bbox_shift", "version", "fps")
_VERSIONS = ("v15", "v1")
_PLACEHOLDER = (0.0, 0.0, 0.0, 0.0)
_MAX_INFO_BYTES = 1 << 20
_MAX_IMAGE_BYTES = 1 << 29
_BYTES_PER_PIXEL = 8
"""At most: a frame and a mask, which is colour before it is grey, and those before them."""
_NAMED = 5
_HINT = "Prepare the avatar again from its video."


@dataclass(frozen=True, slots=True, eq=False)
class _Folder:
    """A checked folder; entry `i` of every list belongs to frame `i` as stored."""

    frames: list[Path]
    masks: list[Path]
    boxes: list[Box]
    crop_boxes: list[Box]
    latents: Tensor
    info: dict[str, str | int | float]


def import_avatar(
    source: Path, avatars_dir: Path, name: str, *, fps: Fraction | None = None, overwrite: bool = False
) -> AvatarMeta:
    """Turn a folder that MuseTalk prepared into an avatar.

    It holds `full_imgs/`, `mask/`, `coords.pkl`, `mask_coords.pkl`, `latents.pt` and mostly
    `avator_info.json`. A loop that is stored forward and backward is recognised and halved. Boxes over
    the frame's border are clamped to it.

    Args:
        source: The folder.
        avatars_dir: Where avatars are.
        name: Name of the new one.
        fps: Frames per second of its source; None is what `avator_info.json` says as `fps`, which upstream
            does not write, else 25, with a warning.
        overwrite: Replace an avatar of that name.

    Raises:
        AvatarError: A file is missing, broken or hostile, or the counts disagree.
        OutputError: The avatar cannot be written.
    """
    writer = AvatarWriter(avatars_dir, name, overwrite=overwrite)
    folder = _read(source)
    rate = fps or _rate(source, folder.info)
    stored = len(folder.frames)
    mirrored = _is_mirrored(folder)
    count = stored // 2 if mirrored else stored
    with writer:
        for number in range(count):
            frame = _decode(folder.frames[number])
            mask = _decode_mask(folder.masks[number], folder.crop_boxes[number])
            box = folder.boxes[number].clamp(frame.shape[1], frame.shape[0])
            if box.empty:
                raise AvatarError(f"Box {number} of {source / 'coords.pkl'} lies outside the frame.", _HINT)
            writer.add(frame, mask, box, folder.crop_boxes[number])
        writer.add_latents(folder.latents[:count].numpy())
        info = folder.info
        return writer.finish(
            fps=rate,
            parameters={
                "bbox_shift": info.get("bbox_shift", 0),
                "mask": "imported",
                "smooth": "off",
                "mirrored": mirrored,
            },
            model={"version": info.get("version", "v15")},
            source={
                "name": str(info.get("video_path", source.resolve().name)),
                "sha256": digest_of(folder.frames[:count]),
                "imported_from": source.resolve().name,
            },
        )


def _read(source: Path) -> _Folder:
    if not source.is_dir():
        raise AvatarError(f"There is no avatar folder at {source}.", "Pass the folder that holds full_imgs/.")
    for part in _PARTS:
        check_inside(source, source / part)
    frames, masks = _numbered(source, "full_imgs"), _numbered(source, "mask")
    coords, mask_coords = read_boxes(source / "coords.pkl"), read_boxes(source / "mask_coords.pkl")
    faceless = [number for number, box in enumerate(coords) if box == _PLACEHOLDER]
    latents = load_latents(source / "latents.pt", len(frames))
    counts = {
        "full_imgs/": len(frames),
        "mask/": len(masks),
        "coords.pkl": len(coords),
        "mask_coords.pkl": len(mask_coords),
        "latents.pt": len(latents),
    }
    if len(set(counts.values())) > 1 or set(frames) != set(masks) or faceless or not frames:
        raise AvatarError(_disagreement(source, counts, frames, masks, faceless), _HINT)
    order = sorted(frames)
    return _Folder(
        [frames[number] for number in order],
        [masks[number] for number in order],
        _whole_boxes(source / "coords.pkl", coords),
        _whole_boxes(source / "mask_coords.pkl", mask_coords),
        join_latents(source / "latents.pt", latents),
        _info(source / "avator_info.json"),
    )


def _numbered(source: Path, place: str) -> dict[int, Path]:
    """The image files of a folder in the avatar's by the number that is their name."""
    folder = source / place
    try:
        found = sorted(path for path in folder.iterdir() if is_image(path))
        for path in (path for path in found if path.is_symlink()):
            check_inside(source, path)
        files = [path for path in found if path.is_file()]
    except OSError as error:
        raise AvatarError(f"{folder} cannot be read: {error.strerror}.", _HINT) from error
    numbered: dict[int, Path] = {}
    for path in files:
        if not (path.stem.isascii() and path.stem.isdecimal() and len(path.stem) <= 18):
            raise AvatarError(f"{path} is not named by a frame's number.", "Move it out of the folder.")
        other = numbered.setdefault(int(path.stem), path)
        if other is not path:
            raise AvatarError(f"{other} and {path.name} are the same frame.", "Remove one of them.")
    return numbered


def _disagreement(
    source: Path, counts: dict[str, int], frames: dict[int, Path], masks: dict[int, Path], faceless: list[int]
) -> str:
    parts = []
    if without_mask := sorted(set(frames) - set(masks)):
        parts.append(f"mask/ lacks {_listed([frames[number].name for number in without_mask])}")
    if without_frame := sorted(set(masks) - set(frames)):
        parts.append(f"full_imgs/ lacks {_listed([masks[number].name for number in without_frame])}")
    if faceless:
        parts.append(f"coords.pkl has no face for frames {_listed(faceless)}")
    if len(set(counts.values())) > 1:
        parts.append("the counts are " + ", ".join(f"{place} {count}" for place, count in counts.items()))
        longest, places = max(counts.values()), ("coords.pkl", "mask_coords.pkl", "latents.pt")
        parts += [
            f"{place} ends before frames {_listed(range(counts[place], longest))}"
            for place in places
            if counts[place] < longest
        ]
    return f"The parts of {source} disagree: {'; '.join(parts) or 'there are no frames'}."


def _listed(names: Sequence[str | int]) -> str:
    more = len(names) - _NAMED
    return ", ".join(str(name) for name in names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _whole_boxes(path: Path, boxes: list[tuple[float, float, float, float]]) -> list[Box]:
    whole = [Box(*(int(side) for side in box)) for box in boxes]
    empty = [str(number) for number, box in enumerate(whole) if box.empty]
    if empty:
        raise AvatarError(f"{path} has empty boxes for frames {_listed(empty)}.", _HINT)
    return whole


def _info(path: Path) -> dict[str, str | int | float]:
    """What `avator_info.json` says; nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        data = strict_json.read(path, _MAX_INFO_BYTES)
    except OSError as error:
        raise AvatarError(f"{path} cannot be read: {error.strerror}.", "Repair it or remove it.") from error
    except JsonError as error:
        raise AvatarError(f"{path} {error}.", "Repair it or remove it.") from None
    if not isinstance(data, dict):
        raise AvatarError(f"{path} is not an object.", "Repair it or remove it.")
    info = {key: data[key] for key in _INFO_KEYS if type(data.get(key)) in (str, int, float)}
    if info.get("version", "v15") not in _VERSIONS:
        raise AvatarError(f"{path} names the unknown model version {info['version']}.", "Use v15 or v1.")
    return info


def _rate(source: Path, info: dict[str, str | int | float]) -> Fraction:
    """Frames per second of the source; where the folder does not say it, 25, said aloud."""
    if "fps" not in info:
        said = "%s does not say its frame rate: taken at %s fps (--fps says another)."
        log.warning(said, source, DEFAULT_FPS)
        return DEFAULT_FPS
    try:
        return parse_fps(info["fps"])
    except InputError as error:
        raise AvatarError(
            f"The fps of {source / 'avator_info.json'} is no rate in {FPS_LIMITS}.", "Repair it or remove it."
        ) from error


def _is_mirrored(folder: _Folder) -> bool:
    """True where the second half is the first one backward, in every part."""
    import torch

    count = len(folder.frames)
    if count % 2:
        return False
    if folder.boxes != folder.boxes[::-1] or folder.crop_boxes != folder.crop_boxes[::-1]:
        return False
    if not torch.equal(folder.latents, folder.latents.flip(0)):
        return False
    return all(
        _same_picture(files[number], files[-1 - number])
        for number in range(count // 2)
        for files in (folder.masks, folder.frames)
    )


def _same_picture(one: Path, other: Path) -> bool:
    a, b = _bytes(one), _bytes(other)
    return a == b or (header_size(a) == header_size(b) and np.array_equal(_decode(one), _decode(other)))


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_IMAGE_BYTES:
            raise AvatarError(f"{path} is too large to be a frame.", _HINT)
        return path.read_bytes()
    except OSError as error:
        raise AvatarError(f"{path} cannot be read: {error.strerror}.", _HINT) from error


def _decode(path: Path, *, grey: bool = False) -> Image:
    data = _bytes(path)
    size = header_size(data)
    if size is not None and size[0] * size[1] > MAX_PIXELS:
        raise AvatarError(f"{path} has more than {MAX_PIXELS >> 20} million pixels.", _HINT)
    if size is not None:
        check_budget(_BYTES_PER_PIXEL * size[0] * size[1], f"What {path} shows", AvatarError)
    image = decode_image(data, grey=grey)
    if image is None:
        raise AvatarError(f"{path} is not an image that can be read.", _HINT)
    return image


def _decode_mask(path: Path, crop: Box) -> Image:
    size = header_size(_bytes(path))
    if size is not None and size != (crop.width, crop.height):
        raise AvatarError(
            f"{path} is {size[0]}x{size[1]}, but its crop box is {crop.width}x{crop.height}.", _HINT
        )
    return _decode(path, grey=True)
