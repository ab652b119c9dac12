"""The kernels behind `musetalk_cli.ops.triton_ops`, which launches them.

Importing this file needs Triton. Where `TRITON_INTERPRET=1` is in the environment at that moment, they run on
the host, one operation after the other, on the numbers of tensors of the CPU.
"""

from __future__ import annotations

import triton
import triton.language as tl

ROUND = tl.constexpr(8388608.0)
"""2 ** 23: a float32 from 0 to 2 ** 22 is rounded, half to even, if this is added to it and taken away."""
LARGEST = tl.constexpr(3.4028234663852886e38)
"""The largest finite float32."""


@triton.jit
def _entries(table, at, inside):
    """Both neighbours and both weights at places on a table, int32; 0 where not `inside`."""
    entry = tl.load(table + at, inside, other=0)
    return (
        (entry & 0xFFFF).to(tl.int32),
        ((entry >> 16) & 0xFFFF).to(tl.int32),
        ((entry >> 32) & 0xFFFF).to(tl.int32),
        ((entry >> 48) & 0xFFFF).to(tl.int32),
    )


@triton.jit
def _all_finite(face, LENGTH: tl.constexpr, CHECKED: tl.constexpr):
    """1 where this program's share of a face's values is finite, else 0."""
    broken = tl.full([CHECKED], 0, tl.int32)
    for begin in range(tl.program_id(0) * CHECKED, LENGTH, tl.num_programs(0) * CHECKED):
        value = tl.load(face + begin + tl.arange(0, CHECKED)).to(tl.float32)
        broken = tl.where(tl.abs(value) <= LARGEST, broken, 1)
    return 1 - tl.max(broken, 0)


@triton.jit
def _level(at):
    """The level of what was drawn, int32, as `ops.drawn.levels` rounds it."""
    share = tl.load(at).to(tl.float32) * 0.5 + 0.5
    scaled = tl.minimum(tl.maximum(share, 0.0), 1.0) * 255.0
    return ((scaled + ROUND) - ROUND).to(tl.int32)


@triton.jit
def _resized(face, left, right, wx0, wx1, upper, lower, wy0, wy1):
    """Levels of the resized face, int32, in OpenCV's integers; an exact halving comes out the same."""
    a, b = _level(face + (upper + left)), _level(face + (upper + right))
    c, d = _level(face + (lower + left)), _level(face + (lower + right))
    top = (a * wx0 + b * wx1) >> 4
    low = (c * wx0 + d * wx1) >> 4
    return (((top * wy0) >> 16) + ((low * wy1) >> 16) + 2) >> 2


@triton.jit
def _sharpened(level, blur, amount, threshold):
    """Unsharp mask of a tile; right where the blur finds all its neighbours inside of it."""
    value = level.to(tl.float32)
    along = tl.dot(value, blur, input_precision="ieee")
    detail = value - tl.dot(blur, along, input_precision="ieee")
    sharp = tl.minimum(tl.maximum(value + amount * detail, 0.0), 255.0)
    kept = tl.where(tl.abs(detail) < threshold, value, sharp)
    return ((kept + ROUND) - ROUND).to(tl.int32)


@triton.jit
def _tile(
    place, face, weights, amount, threshold, across, width, height, number,
    SIDE: tl.constexpr, TAPS: tl.constexpr, TILE: tl.constexpr, PLANES: tl.constexpr,
):  # fmt: skip
    """One tile of the patch of one face, which has `across` of them side by side."""
    RADIUS: tl.constexpr = TAPS // 2
    STEP: tl.constexpr = TILE - 2 * RADIUS
    # from one pixel to the next, and from one colour to the next
    PIXEL: tl.constexpr = 1 if PLANES else 3
    PLANE: tl.constexpr = SIDE * SIDE if PLANES else 1
    down = number // across
    side = tl.arange(0, TILE)
    row = down * STEP + side - RADIUS
    col = (number - down * across) * STEP + side - RADIUS
    x, y = col + tl.load(place + 8).to(tl.int32), row + tl.load(place + 9).to(tl.int32)
    wide, high = tl.load(place + 10).to(tl.int32), tl.load(place + 11).to(tl.int32)
    columns = tl.load(place + 2).to(tl.pointer_type(tl.int64)) + RADIUS
    rows = tl.load(place + 3).to(tl.pointer_type(tl.int64)) + RADIUS
    left, right, wx0, wx1 = _entries(columns, x, (x >= -RADIUS) & (x < wide + RADIUS))
    upper, lower, wy0, wy1 = _entries(rows, y, (y >= -RADIUS) & (y < high + RADIUS))
    own = (side >= RADIUS) & (side < TILE - RADIUS)
    stored = (own & (row < height))[:, None] & (own & (col < width))[None, :]
    covered = ((y >= 0) & (y < high))[:, None] & ((x >= 0) & (x < wide))[None, :]
    pixel = row[:, None] * width + col[None, :]
    mask = tl.load(place + 1).to(tl.pointer_type(tl.uint8)) + pixel
    alpha = tl.load(mask, stored & covered, other=0).to(tl.int32)
    body = tl.load(place).to(tl.pointer_type(tl.uint8)) + pixel * 3
    to = tl.load(place + 4).to(tl.pointer_type(tl.uint8)) + pixel * 3
    tap = side[None, :] - side[:, None] + RADIUS
    blur = tl.load(weights + tap, (tap >= 0) & (tap < TAPS), other=0.0)
    # one by one: Triton before 3.3 knows no stars
    left, right, wx0, wx1 = left[None, :] * PIXEL, right[None, :] * PIXEL, wx0[None, :], wx1[None, :]
    upper, lower = upper[:, None] * (SIDE * PIXEL), lower[:, None] * (SIDE * PIXEL)
    wy0, wy1 = wy0[:, None], wy1[:, None]
    for channel in range(3):
        # drawn are red, green, blue, and a picture has blue first
        plane = face + (2 - channel) * PLANE
        level = _resized(plane, left, right, wx0, wx1, upper, lower, wy0, wy1)
        if TAPS > 1:
            level = _sharpened(level, blur, amount, threshold)
        below = tl.load(body + channel, stored, other=0).to(tl.int32)
        mixed = level * alpha + below * (255 - alpha) + 128
        tl.store(to + channel, (((mixed >> 8) + mixed) >> 8).to(tl.uint8), stored)


@triton.jit
def compose(
    batch, drawn, weights, amount, threshold,
    SIDE: tl.constexpr, FIELDS: tl.constexpr, TAPS: tl.constexpr, TILE: tl.constexpr, CHECKED: tl.constexpr,
    PLANES: tl.constexpr,
):  # fmt: skip
    """A share of the tiles of one face's patch: `triton_ops.Compositor` says what it takes."""
    STEP: tl.constexpr = TILE - 2 * (TAPS // 2)
    place = batch + tl.program_id(1) * FIELDS
    marks = tl.load(place + 5)
    if marks != 0:
        face = drawn + tl.program_id(1).to(tl.int64) * (3 * SIDE * SIDE)
        finite = _all_finite(face, 3 * SIDE * SIDE, CHECKED)
        tl.store(marks.to(tl.pointer_type(tl.uint8)) + tl.program_id(0), finite.to(tl.uint8))
        width, height = tl.load(place + 6).to(tl.int32), tl.load(place + 7).to(tl.int32)
        across = (width + STEP - 1) // STEP
        tiles = across * ((height + STEP - 1) // STEP)
        for number in range(tl.program_id(0), tiles, tl.num_programs(0)):
            _tile(
                place, face, weights, amount, threshold, across, width, height, number,
                SIDE, TAPS, TILE, PLANES,
            )  # fmt: skip
