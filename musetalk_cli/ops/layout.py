"""Telling and converting image layouts, and checking the arguments both versions of the ops share."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.errors import InputError
from musetalk_cli.types import Box

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = (1, 3, 4)
MODES = ("bilinear", "nearest")
SIGMA_LIMIT = 1000.0
AMOUNT_LIMIT = 1000.0

ArrayT = TypeVar("ArrayT", NDArray[Any], "Tensor")
Boxes = Sequence[int] | Sequence[Sequence[int]]


class Layout(NamedTuple):
    """Where the parts of an image lie, counted from the last dimension.

    Attributes:
        name: The dimensions in order: B batch, H height, W width, C channels.
        height: Dimension of the rows, negative.
        width: Dimension of the columns, negative.
        channels: Dimension of the channels, negative.
    """

    name: str
    height: int
    width: int
    channels: int

    @property
    def batched(self) -> bool:
        """True where the first dimension counts images."""
        return self.name.startswith("B")

    @property
    def planar(self) -> bool:
        """True where the channels come before rows and columns."""
        return self.channels < self.height


HWC = Layout("HWC", -3, -2, -1)
BHWC = Layout("BHWC", -3, -2, -1)
BCHW = Layout("BCHW", -2, -1, -3)
CHW = Layout("CHW", -2, -1, -3)
LAYOUTS = {layout.name: layout for layout in (HWC, BHWC, BCHW, CHW)}


def shown(shape: Sequence[int]) -> str:
    """A shape as error messages write it."""
    return str(list(shape))


def tell_layout(shape: Sequence[int], layout: str | None = None, name: str = "image") -> Layout:
    """Tell what the dimensions of an image are.

    Three dimensions are `[H, W, C]`; four are `[B, H, W, C]` or `[B, C, H, W]`, whichever puts 1, 3 or 4 at
    the channels. `[C, H, W]` is taken only when it is said.

    Args:
        shape: The image's shape.
        layout: The answer, where the caller knows it: "HWC", "BHWC", "BCHW" or "CHW".
        name: What error messages call the image.

    Raises:
        InputError: The image is empty, the layout cannot be told, or the shape does not fit the one said.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"There is no layout {layout!r}.", f"Layouts are {', '.join(LAYOUTS)}.")
    if layout is not None:
        said = LAYOUTS[layout]
        fits = len(shape) == len(said.name) and shape[said.channels] in CHANNELS
        if not fits:
            hint = f"{layout} has {len(layout)} dimensions and 1, 3 or 4 channels at its C."
            raise InputError(f"The {name} of shape {shown(shape)} is not in layout {layout}.", hint)
        found = [said]
    elif len(shape) in (3, 4):
        candidates = (HWC,) if len(shape) == 3 else (BHWC, BCHW)
        found = [each for each in candidates if shape[each.channels] in CHANNELS]
    else:
        found = []
    if len(found) != 1:
        hint = "Images are [H, W, C], [B, H, W, C] or [B, C, H, W] with 1, 3 or 4 channels."
        if found:
            hint = 'Both channel positions could be meant: pass layout="BHWC" or layout="BCHW".'
        elif len(shape) == 3 and shape[0] in CHANNELS:
            hint += ' For [C, H, W] pass layout="CHW".'
        raise InputError(f"The layout of the {name} of shape {shown(shape)} cannot be told.", hint)
    if 0 in shape:
        raise InputError(
            f"The {name} of shape {shown(shape)} is empty.", "Every dimension must be at least 1."
        )
    return found[0]


def to_bhwc(image: ArrayT, layout: Layout) -> ArrayT:
    """View an image of any layout as `[B, H, W, C]`; nothing is copied."""
    batch = image if layout.batched else image[None]
    return batch.swapaxes(1, 2).swapaxes(2, 3) if layout.planar else batch


def from_bhwc(image: ArrayT, layout: Layout) -> ArrayT:
    """View `[B, H, W, C]` in another layout; the inverse of `to_bhwc`, nothing is copied."""
    batch = image.swapaxes(2, 3).swapaxes(1, 2) if layout.planar else image
    return batch if layout.batched else batch[0]


def mask_to_bhwc(mask: ArrayT, size: tuple[int, int]) -> ArrayT:
    """View a mask as `[B, H, W, 1]`; nothing is copied.

    Args:
        mask: `[H, W]`, `[H, W, 1]`, `[B, H, W]`, `[B, H, W, 1]` or `[B, 1, H, W]`.
        size: Height and width of the mask's crop box.

    Raises:
        InputError: The mask has another size or shape.
    """
    shape = tuple(mask.shape)
    if shape == size:
        return mask[None, :, :, None]
    if shape == (*size, 1):
        return mask[None]
    if shape[:1] != (0,):
        if len(shape) == 3 and shape[1:] == size:
            return mask[..., None]
        if len(shape) == 4 and shape[1:] == (*size, 1):
            return mask
        if len(shape) == 4 and shape[1:] == (1, *size):
            return to_bhwc(mask, BCHW)
    raise InputError(
        f"The mask of shape {shown(shape)} is not of its crop box's size, {size[0]} x {size[1]}.",
        "A mask is [H, W], [H, W, 1], [B, H, W], [B, H, W, 1] or [B, 1, H, W], of its crop box's size.",
    )


def check_size(size: Sequence[int]) -> tuple[int, int]:
    """Read a height and a width; InputError unless they are two positive whole numbers."""
    try:
        height, width = (operator.index(side) for side in size)
    except (TypeError, ValueError):
        message = f"The size {size!r} is not two whole numbers."
        raise InputError(message, "Pass (height, width) in pixels.") from None
    if height < 1 or width < 1:
        raise InputError(f"The size {height} x {width} is empty.", "Height and width must be at least 1.")
    return height, width


def check_mode(mode: str) -> str:
    """Read a resize mode; InputError where there is none of that name."""
    if mode not in MODES:
        raise InputError(f"There is no resize mode {mode!r}.", f"Modes are {', '.join(MODES)}.")
    return mode


def check_sigma(sigma: float) -> float:
    """Read a blur's standard deviation in pixels; InputError unless above 0 and at most 1000."""
    if not (math.isfinite(sigma) and 0 < sigma <= SIGMA_LIMIT):
        raise InputError(
            f"The sigma {sigma} cannot be used.", f"It must be above 0, at most {SIGMA_LIMIT:g}."
        )
    return float(sigma)


def check_amount(name: str, value: float) -> float:
    """Read a strength or a threshold; InputError unless from 0 to 1000."""
    if not (math.isfinite(value) and 0 <= value <= AMOUNT_LIMIT):
        raise InputError(f"The {name} {value} cannot be used.", f"It must be from 0 to {AMOUNT_LIMIT:g}.")
    return float(value)


class BlendJob(NamedTuple):
    """Images of a batch that share one pair of boxes.

    Attributes:
        images: Which images of the batch.
        bbox: Where the face goes, in frame coordinates.
        crop: What the mask covers, in frame coordinates.
    """

    images: slice
    bbox: Box
    crop: Box

    def region(self, height: int, width: int) -> Box:
        """The pixels of a `height` x `width` frame that can change; empty where none can.

        Outside the face box the crop is pasted over itself, which changes nothing.
        """
        return self.bbox.intersect(self.crop).clamp(width, height)


def blend_jobs(count: int, bbox: Boxes, crop_box: Boxes, masks_apart: bool) -> list[BlendJob]:
    """Divide a batch into as few jobs as its boxes allow.

    Args:
        count: Images in the batch.
        bbox: One box for all images, or one for each.
        crop_box: The same.
        masks_apart: True where every image has a mask of its own, so that every image is a job.

    Raises:
        InputError: A box is not four whole numbers or is empty, or the boxes are not as many as the images.
    """
    faces, crops = _read_boxes(bbox, "bbox", count), _read_boxes(crop_box, "crop_box", count)
    if len({*faces}) == len({*crops}) == 1 and not masks_apart:
        return [BlendJob(slice(0, count), faces[0], crops[0])]
    pairs = zip(faces, crops, strict=True)
    return [BlendJob(slice(i, i + 1), face, crop) for i, (face, crop) in enumerate(pairs)]


def pick(batch: ArrayT, images: slice, count: int, name: str) -> ArrayT:
    """The images of a job out of a batch of `count`, or the only image, which serves them all.

    Raises:
        InputError: The batch holds neither one image nor `count`.
    """
    if len(batch) == 1:
        return batch
    if len(batch) != count:
        raise InputError(f"There are {len(batch)} images in the {name} for {count} in the body.")
    return batch[images]


def _read_boxes(value: Boxes, name: str, count: int) -> list[Box]:
    """Read one box for all, or `count` boxes, as a list of `count`."""
    rows: Any = value
    try:
        single = len(rows) == 4 and not any(hasattr(side, "__len__") for side in rows)
        boxes = [Box(*map(operator.index, row)) for row in ([rows] if single else rows)]
    except TypeError:
        message = f"The {name} {value!r} is not a box."
        raise InputError(
            message, "Pass (x1, y1, x2, y2) in whole pixels, or one box for each image."
        ) from None
    if not single and len(boxes) != count:
        raise InputError(f"There are {len(boxes)} boxes in {name} for {count} images.")
    for box in boxes:
        if box.empty:
            raise InputError(f"The {name} {tuple(box)} is empty.", "x2 must be above x1, and y2 above y1.")
    return boxes * count if single else boxes


def as_array_kind(value: NDArray[Any]) -> np.dtype[Any]:
    """The dtype of a numpy image or mask; InputError unless uint8, float16, float32 or float64."""
    if not isinstance(value, np.ndarray):
        kind = type(value).__name__
        raise InputError(f"A numpy array is needed, not {kind}.", "Tensors go to musetalk_cli.ops.")
    if value.dtype != np.uint8 and value.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"Values of dtype {value.dtype} are no image.", "Pass uint8 or floats, from 0 to 255."
        )
    return value.dtype
