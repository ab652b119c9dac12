"""The ops on tensors of any device; `musetalk_cli.ops.reference` says what they must return.

All take uint8, float16, bfloat16, float32 or float64 with values from 0 to 255, in layout `[H, W, C]`,
`[B, H, W, C]`, `[B, C, H, W]` or, when `layout="CHW"` says so, `[C, H, W]`, with 1, 3 or 4 channels of any
order. They return a new tensor of the same layout, dtype and device, never change an argument, and never wait
for the device once the tables of a size lie there.

Agreement: uint8 resize, blur and blend repeat OpenCV's and PIL's integers exactly; the rest is computed in
float32 (float64 for float64) and lies within 1e-3 of the reference before rounding. Nothing here is a
convolution or a matrix product, which a device may round to fewer bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from musetalk_cli.errors import InputError
from musetalk_cli.ops.device_tables import cached, on_device
from musetalk_cli.ops.layout import (
    BHWC,
    Boxes,
    Layout,
    blend_jobs,
    check_amount,
    check_mode,
    check_sigma,
    check_size,
    mask_to_bhwc,
    pick,
    tell_layout,
    to_bhwc,
)
from musetalk_cli.ops.tables import (
    fixed_point,
    gaussian,
    gaussian_levels,
    linear_taps,
    nearest_taps,
    reflected,
)
from musetalk_cli.types import Box

_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
_Taps = tuple[Tensor, Tensor, Tensor, Tensor]


def gpu_resize(
    image: Tensor, size: Sequence[int], mode: str = "bilinear", layout: str | None = None
) -> Tensor:
    """Resize as `cv2.resize` does: half-pixel centres, no antialiasing, upward and downward alike.

    Args:
        image: Any layout and dtype named above.
        size: Height and width of the result.
        mode: "bilinear" (`INTER_LINEAR`; uint8 in its fixed-point arithmetic) or "nearest" (`INTER_NEAREST`).
        layout: The image's layout, where its shape leaves it open.

    Raises:
        InputError: The image, the size or the mode cannot be used.
    """
    _check_tensor(image, "image")
    told = tell_layout(image.shape, layout)
    return _resize(image, check_size(size), check_mode(mode), told)


def gpu_gaussian_blur(image: Tensor, sigma: float, layout: str | None = None) -> Tensor:
    """Blur as `cv2.GaussianBlur(image, (0, 0), sigma)` does: borders reflected without repeating the edge.

    Args:
        image: Any layout and dtype named above.
        sigma: Standard deviation in pixels; the kernel reaches 3 of them for uint8 and 4 for floats.
        layout: The image's layout, where its shape leaves it open.

    Raises:
        InputError: The image or the sigma cannot be used.
    """
    _check_tensor(image, "image")
    told = tell_layout(image.shape, layout)
    sigma = check_sigma(sigma)
    if image.dtype != torch.uint8:
        return _filter(image.to(_wide(image)), gaussian(sigma, 4), told).to(image.dtype)
    # Whole weights keep every sum below 2 ** 24, where float32 is exact.
    total = _filter(image.float(), gaussian_levels(sigma), told)
    return (total + 32768).div_(65536).floor_().to(torch.uint8)


def gpu_unsharp_mask(
    image: Tensor,
    amount: float = 1.2,
    sigma: float = 1.0,
    threshold: float = 5.0,
    layout: str | None = None,
) -> Tensor:
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
    _check_tensor(image, "image")
    told = tell_layout(image.shape, layout)
    kernel = gaussian(check_sigma(sigma), 4)
    amount, threshold = check_amount("amount", amount), check_amount("threshold", threshold)
    if amount == 0:
        return image.clone()
    x = image.to(_wide(image))
    detail = x - _filter(x, kernel, told)
    sharp = torch.add(x, detail, alpha=amount).clamp_(0, 255)
    result = torch.where(detail.abs() < threshold, x, sharp)
    return (result.round_() if image.dtype == torch.uint8 else result).to(image.dtype)


def make_tables(
    shape: tuple[int, int], size: tuple[int, int], sigma: float | None, device: torch.device
) -> None:
    """Make the tables of a bilinear resize of uint8 images, and of an unsharp mask behind it.

    Args:
        shape: Height and width before.
        size: Height and width after.
        sigma: Of the unsharp mask; None where there is none.
        device: Where the images will be.
    """
    for before, after, whole_edges in ((shape[0], size[0], False), (shape[1], size[1], True)):
        _taps(before, after, torch.int32, whole_edges, device)
        if sigma is not None:
            _reflected(after, len(gaussian(sigma, 4)) // 2, device)


def gpu_image_blending(
    body: Tensor,
    face: Tensor,
    bbox: Boxes,
    mask: Tensor | Sequence[Tensor],
    crop_box: Boxes,
    layout: str | None = None,
) -> Tensor:
    """Put a face on a crop of the frame and paste that crop back through a mask, as PIL does.

    For uint8 the result is `(a*m + b*(255 - m)) / 255` rounded, which PIL computes by shifts; for floats
    `b + (a - b) * m / 255`. Nothing is written outside the frame, the crop or the face box.

    Args:
        body: The frame or frames: any layout and dtype named above.
        face: Layout, dtype, device and channels of the body; one image or as many as the body's. Resized to
            its box (bilinear) where it has another size.
        bbox: `(x1, y1, x2, y2)` of the face in the frame, for all images, or one such box for each.
        mask: 0..255, uint8 or float, of the crop box's size: `[H, W]`, `[H, W, 1]`, `[B, H, W]`,
            `[B, H, W, 1]`, `[B, 1, H, W]`, or a list of one mask for each image. For a uint8 body a float
            mask is rounded to whole levels.
        crop_box: `(x1, y1, x2, y2)` of the mask in the frame, which it may leave; or one for each image.
        layout: The layout of body and face, where the body's shape leaves it open.

    Raises:
        InputError: A box is empty, a mask is not of its crop box's size, or body and face do not match.
    """
    _check_tensor(body, "body")
    told = tell_layout(body.shape, layout, "body")
    _check_tensor(face, "face", body.device)
    if face.dtype != body.dtype:
        raise InputError(f"The face is {face.dtype} and the body {body.dtype}.", "Convert one of them.")
    tell_layout(face.shape, told.name, "face")
    out = body.clone()
    frames, faces = to_bhwc(out, told), to_bhwc(face, told)
    count = len(frames)
    if faces.shape[-1] != frames.shape[-1]:
        raise InputError(f"The face has {faces.shape[-1]} channels and the body {frames.shape[-1]}.")
    apart = isinstance(mask, (list, tuple))
    if apart and len(mask) != count:
        raise InputError(f"There are {len(mask)} masks for {count} images.")
    for job in blend_jobs(count, bbox, crop_box, apart):
        own = mask if isinstance(mask, Tensor) else mask[job.images.start]
        _check_tensor(own, "mask", body.device)
        full = mask_to_bhwc(own, (job.crop.height, job.crop.width))
        levels = pick(full, job.images, 1 if apart else count, "mask")
        chosen = pick(faces, job.images, count, "face")
        region = job.region(*frames.shape[1:3])
        _paste(frames[job.images], chosen, job.bbox, levels, job.crop, region)
    return out


def _paste(frames: Tensor, faces: Tensor, bbox: Box, mask: Tensor, crop: Box, region: Box) -> None:
    """Blend `[B, H, W, C]` faces into `region` of the frames, in place; `mask` is `[B, H, W, 1]`."""
    if region.empty:
        return
    if faces.shape[1:3] != (bbox.height, bbox.width):
        faces = _resize(faces, (bbox.height, bbox.width), "bilinear", BHWC)
    above = _cut(faces, region.shift(-bbox.x1, -bbox.y1))
    below = _cut(frames, region)
    levels = _cut(mask, region.shift(-crop.x1, -crop.y1))
    wide = _wide(frames)
    if frames.dtype == torch.uint8 and levels.dtype != torch.uint8:
        levels = levels.round().clamp_(0, 255)
    # For uint8 float32 is off by less than 1e-4 and a quotient by 255 is at least 1 / 510 away from a tie,
    # so that rounding gives the same level as PIL's integers.
    mixed = torch.lerp(below.to(wide), above.to(wide), levels.to(wide) / 255)
    below.copy_(mixed.round_() if frames.dtype == torch.uint8 else mixed)


def _cut(images: Tensor, box: Box) -> Tensor:
    """The pixels of `[B, H, W, C]` inside a box, as a view."""
    rows, cols = box.slices()
    return images[:, rows, cols]


def _check_tensor(value: Tensor, name: str, device: torch.device | None = None) -> None:
    """Refuse what is not a tensor of a dtype the ops take, on the device of the others."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise InputError(f"The {name} is {kind}, not a tensor.", "Arrays go to musetalk_cli.ops.reference.")
    if value.dtype not in _DTYPES:
        raise InputError(f"The {name} is of dtype {value.dtype}.", "Pass uint8 or floats, from 0 to 255.")
    if device is not None and value.device != device:
        raise InputError(f"The {name} is on {value.device} and the body on {device}.", "Move one of them.")


def _wide(image: Tensor) -> torch.dtype:
    """What an image is computed in."""
    return torch.float64 if image.dtype == torch.float64 else torch.float32


def _along(values: Tensor, image: Tensor, dim: int) -> Tensor:
    """A table of one dimension, shaped to meet an image along `dim`."""
    return values.view([-1 if i == image.dim() + dim else 1 for i in range(image.dim())])


def _resize(image: Tensor, size: tuple[int, int], mode: str, layout: Layout) -> Tensor:
    """Resize along rows and columns of a layout."""
    (height, width), (rows, cols) = size, (image.shape[layout.height], image.shape[layout.width])
    if (rows, cols) == (height, width):
        return image.clone()
    if mode == "nearest":
        picked = image.index_select(layout.height, _nearest(rows, height, image.device))
        return picked.index_select(layout.width, _nearest(cols, width, image.device))
    if image.dtype != torch.uint8:
        wide = _wide(image)
        x = _mix(image.to(wide), layout.width, _taps(cols, width, wide, True, image.device))
        return _mix(x, layout.height, _taps(rows, height, wide, True, image.device)).to(image.dtype)
    x = _mix(image, layout.width, _taps(cols, width, torch.int32, True, image.device)) >> 4
    upper, lower, first, second = _taps(rows, height, torch.int32, False, image.device)
    above = (x.index_select(layout.height, upper) * _along(first, x, layout.height)) >> 16
    below = (x.index_select(layout.height, lower) * _along(second, x, layout.height)) >> 16
    return ((above + below + 2) >> 2).to(torch.uint8)


def _mix(x: Tensor, dim: int, taps: _Taps) -> Tensor:
    """The weighted sum of two neighbours along `dim`."""
    left, right, first, second = taps
    total = x.index_select(dim, left) * _along(first, x, dim)
    return total + x.index_select(dim, right) * _along(second, x, dim)


@cached
@torch.inference_mode(False)
def _taps(src: int, dst: int, dtype: torch.dtype, whole_edges: bool, device: torch.device) -> _Taps:
    """The table of `linear_taps` on a device: both neighbours, then both weights in `dtype`."""
    sides, weights = linear_taps(src, dst, whole_edges)
    (left, right), (first, second) = on_device(
        device, sides, fixed_point(weights) if dtype == torch.int32 else weights
    )
    return left, right, first.to(dtype), second.to(dtype)


@cached
@torch.inference_mode(False)
def _nearest(src: int, dst: int, device: torch.device) -> Tensor:
    """The table of `nearest_taps` on a device."""
    return on_device(device, nearest_taps(src, dst))[0]


@cached
@torch.inference_mode(False)
def _reflected(size: int, radius: int, device: torch.device) -> Tensor:
    """The table of `reflected` on a device."""
    return on_device(device, reflected(size, radius))[0]


def _filter(x: Tensor, kernel: tuple[float, ...], layout: Layout) -> Tensor:
    """Correlate with the same symmetric kernel along columns and rows; borders are reflected."""
    for dim in (layout.width, layout.height):
        size = x.shape[dim]
        padded = x.index_select(dim, _reflected(size, len(kernel) // 2, x.device))
        x = padded.narrow(dim, 0, size) * kernel[0]
        for i, weight in enumerate(kernel[1:], start=1):
            if weight:
                x.add_(padded.narrow(dim, i, size), alpha=weight)
    return x
