"""The ops on numpy arrays by way of OpenCV: what `musetalk_cli.ops` must equal, and the path without a GPU.

All take uint8, float16, float32 or float64 with values from 0 to 255, in layout `[H, W, C]`, `[B, H, W, C]`,
`[B, C, H, W]` or, when `layout="CHW"` says so, `[C, H, W]`, with 1, 3 or 4 channels of any order. They return
a new array of the same layout and dtype and never change an argument. `[H, W, C]` of uint8 goes straight to
OpenCV; a batch is a loop over its images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.errors import InputError
from musetalk_cli.ops.layout import (
    HWC,
    Boxes,
    Layout,
    as_array_kind,
    blend_jobs,
    check_amount,
    check_mode,
    check_sigma,
    check_size,
    from_bhwc,
    mask_to_bhwc,
    pick,
    tell_layout,
    to_bhwc,
)
from musetalk_cli.ops.tables import kernel_size
from musetalk_cli.types import Box

Array = NDArray[Any]

_FLAGS = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


def gpu_resize(image: Array, size: Sequence[int], mode: str = "bilinear", layout: str | None = None) -> Array:
    """Resize as `cv2.resize` does: half-pixel centres, no antialiasing, upward and downward alike.

    Args:
        image: Any layout and dtype named above.
        size: Height and width of the result.
        mode: "bilinear" (`INTER_LINEAR`) or "nearest" (`INTER_NEAREST`).
        layout: The image's layout, where its shape leaves it open.

    Raises:
        InputError: The image, the size or the mode cannot be used.
    """
    as_array_kind(image)
    told = tell_layout(image.shape, layout)
    height, width = check_size(size)
    flag = _FLAGS[check_mode(mode)]
    return _each(image, told, lambda one: _resize(one, height, width, flag))


def gpu_gaussian_blur(image: Array, sigma: float, layout: str | None = None) -> Array:
    """Blur as `cv2.GaussianBlur(image, (0, 0), sigma)` does: borders reflected without repeating the edge.

    Args:
        image: Any layout and dtype named above.
        sigma: Standard deviation in pixels; the kernel reaches 3 of them for uint8 and 4 for floats.
        layout: The image's layout, where its shape leaves it open.

    Raises:
        InputError: The image or the sigma cannot be used.
    """
    as_array_kind(image)
    told = tell_layout(image.shape, layout)
    check_sigma(sigma)
    return _each(image, told, lambda one: _blur(one, sigma))


def gpu_unsharp_mask(
    image: Array,
    amount: float = 1.2,
    sigma: float = 1.0,
    threshold: float = 5.0,
    layout: str | None = None,
) -> Array:
    """Sharpen: `(1 + amount) * x - amount * blur(x)`, clipped, but `x` where `|x - blur(x)| < threshold`.

    The blur is not rounded, and its kernel reaches 4 sigma for every dtype. uint8 results are rounded half to
    even.

    Args:
        image: Any layout and dtype named above.
        amount: Strength from 0; 0 returns an equal copy.
        sigma: Standard deviation of the blur in pixels.
        threshold: Levels, per channel value, below which nothing is sharpened.
        layout: The image's layout, where its shape leaves it open.

    Raises:
        InputError: The image or a number cannot be used.
    """
    as_array_kind(image)
    told = tell_layout(image.shape, layout)
    check_sigma(sigma)
    check_amount("amount", amount)
    check_amount("threshold", threshold)
    if amount == 0:
        return np.array(image)
    return _each(image, told, lambda one: _unsharp(one, amount, sigma, threshold))


def gpu_image_blending(
    body: Array,
    face: Array,
    bbox: Boxes,
    mask: Array | Sequence[Array],
    crop_box: Boxes,
    layout: str | None = None,
) -> Array:
    """Put a face on a crop of the frame and paste that crop back through a mask, as PIL does.

    For uint8, `t = a*m + b*(255 - m) + 128; ((t >> 8) + t) >> 8`, which is `(a*m + b*(255 - m)) / 255`
    rounded; for floats `b + (a - b) * m / 255`. Nothing is written outside frame, crop and face box.

    Args:
        body: The frame or frames: any layout and dtype named above.
        face: Layout, dtype and channels of the body; one image or as many as the body's. Resized to its box
            (bilinear) where it has another size.
        bbox: `(x1, y1, x2, y2)` of the face in the frame, for all images, or one such box for each.
        mask: 0..255, uint8 or float, of the crop box's size: `[H, W]`, `[H, W, 1]`, `[B, H, W]`,
            `[B, H, W, 1]`, `[B, 1, H, W]`, or a list of one mask for each image. For a uint8 body a float
            mask is rounded to whole levels.
        crop_box: `(x1, y1, x2, y2)` of the mask in the frame, which it may leave; or one for each image.
        layout: The layout of body and face, where the body's shape leaves it open.

    Raises:
        InputError: A box is empty, a mask is not of its crop box's size, or body and face do not match.
    """
    kind = as_array_kind(body)
    told = tell_layout(body.shape, layout, "body")
    if as_array_kind(face) != kind:
        raise InputError(f"The face is {face.dtype} and the body {kind}.", "Convert one of them.")
    tell_layout(face.shape, told.name, "face")
    out = np.array(body)
    frames, faces = to_bhwc(out, told), to_bhwc(face, told)
    count = len(frames)
    if faces.shape[-1] != frames.shape[-1]:
        raise InputError(f"The face has {faces.shape[-1]} channels and the body {frames.shape[-1]}.")
    apart = isinstance(mask, (list, tuple))
    if apart and len(mask) != count:
        raise InputError(f"There are {len(mask)} masks for {count} images.")
    for job in blend_jobs(count, bbox, crop_box, apart):
        own = mask if isinstance(mask, np.ndarray) else mask[job.images.start]
        as_array_kind(own)
        full = mask_to_bhwc(own, (job.crop.height, job.crop.width))
        levels = pick(full, job.images, 1 if apart else count, "mask")
        chosen = pick(faces, job.images, count, "face")
        for i, frame in enumerate(frames[job.images]):
            one_face, one_mask = chosen[min(i, len(chosen) - 1)], levels[min(i, len(levels) - 1)]
            _paste(frame, one_face, job.bbox, one_mask, job.crop, job.region(*frame.shape[:2]))
    return out


def _each(image: Array, layout: Layout, step: Callable[[Array], Array]) -> Array:
    """Run a step for `[H, W, C]` on an image of any layout."""
    if layout == HWC:
        return step(image)
    results = np.stack([step(one) for one in to_bhwc(image, layout)])
    return np.ascontiguousarray(from_bhwc(results, layout))


def _plain(image: Array) -> Array:
    """An image as OpenCV takes it: contiguous, and float32 for float16."""
    plain: Array = np.ascontiguousarray(image, np.float32 if image.dtype == np.float16 else None)
    return plain


def _resize(image: Array, height: int, width: int, flag: int) -> Array:
    """Resize `[H, W, C]`."""
    result: Array = cv2.resize(_plain(image), (width, height), interpolation=flag)
    return result.reshape(height, width, -1).astype(image.dtype, copy=False)


def _blur(image: Array, sigma: float) -> Array:
    """Blur `[H, W, C]`."""
    taps = kernel_size(sigma, 3 if image.dtype == np.uint8 else 4)
    result: Array = cv2.GaussianBlur(_plain(image), (taps, taps), sigma)
    return result.reshape(image.shape).astype(image.dtype, copy=False)


def _unsharp(image: Array, amount: float, sigma: float, threshold: float) -> Array:
    """Sharpen `[H, W, C]`."""
    x: Array = image.astype(np.float64 if image.dtype == np.float64 else np.float32)
    blurred = _blur(x, sigma)
    detail = np.subtract(x, blurred, out=blurred)
    if image.dtype == np.uint8:
        # x is in 0..255, so clipping all of it is clipping what is sharpened
        detail *= np.abs(detail) >= threshold
        detail *= amount
        detail += x
        np.clip(detail, 0, 255, out=detail)
        return np.rint(detail, out=detail).astype(np.uint8)
    sharp = np.clip(x + amount * detail, 0, 255)
    result: Array = np.where(np.abs(detail) < threshold, x, sharp)
    return result.astype(image.dtype, copy=False)


def _paste(frame: Array, face: Array, bbox: Box, mask: Array, crop: Box, region: Box) -> None:
    """Blend a face into `region` of the `[H, W, C]` frame, in place; `mask` is `[H, W, 1]`."""
    if region.empty:
        return
    if face.shape[:2] != (bbox.height, bbox.width):
        face = _resize(face, bbox.height, bbox.width, cv2.INTER_LINEAR)
    above = face[region.shift(-bbox.x1, -bbox.y1).slices()]
    below = frame[region.slices()]
    levels = mask[region.shift(-crop.x1, -crop.y1).slices()]
    if frame.dtype == np.uint8:
        below[...] = _mix_levels(above, below, levels)
    else:
        wide = np.float64 if frame.dtype == np.float64 else np.float32
        a: Array = above.astype(wide)
        b: Array = below.astype(wide)
        share: Array = levels.astype(wide)
        below[...] = b + (a - b) * (share / 255)


def _mix_levels(above: Array, below: Array, mask: Array) -> Array:
    """PIL's blend of uint8 `[H, W, C]` by a mask `[H, W, 1]`, as uint16 holding 0..255."""
    if mask.dtype != np.uint8:
        mask = np.clip(np.rint(mask), 0, 255).astype(np.uint8)
    # One mask value for each channel value: numpy is slow where the inner dimension is broadcast.
    levels = cv2.merge([np.ascontiguousarray(mask)] * above.shape[-1]).reshape(above.shape)
    # The sum is at most 255 * 255 + 128, and 254 more after the shift: both fit 16 bits.
    total: Array = np.multiply(above, levels, dtype=np.uint16)
    other = np.multiply(below, ~levels, dtype=np.uint16)
    total += other
    total += 128
    np.right_shift(total, 8, out=other)
    total += other
    total >>= 8
    return total
