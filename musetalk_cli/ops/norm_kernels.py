"""The kernels behind `musetalk_cli.ops.norms`, which launches them. Importing this file needs Triton.

All read and write pictures channels-last, and compute in float32. A group's variance is the mean square of
what differs from its mean, so that no digits are lost where the mean is large.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _activated(value, SILU: tl.constexpr):
    if SILU:
        value = value / (1 + tl.exp(-value))
    return value


@triton.jit
def norm_group(
    picture, added, weight, bias, out, places, channels, eps,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, ADDED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """One group of one picture, which the cache holds after the first look; the grid is `[groups, pictures]`.

    Args:
        picture: `[pictures, places, channels]`.
        added: `[channels]`, added to the picture before all else, where `ADDED`.
        weight: `[channels]`.
        bias: `[channels]`.
        out: As `picture`.
        places: Rows times columns of a picture.
        channels: Of a picture.
        eps: Added to the variance.
        WIDTH: Channels of a group; at most `COLS`.
        ROWS: Places that are read at once.
        COLS: Channels that are read at once.
        ADDED: Whether there is something to add.
        SILU: Whether SiLU is behind it.
    """
    side, col = tl.arange(0, ROWS), tl.arange(0, COLS)
    own = col < WIDTH
    channel = tl.program_id(0) * WIDTH + col
    begun = tl.program_id(1).to(tl.int64) * places * channels
    more = tl.full([COLS], 0.0, tl.float32)
    if ADDED:
        more = tl.load(added + channel, own, other=0).to(tl.float32)
    count = (places * WIDTH).to(tl.float32)
    total = tl.full([ROWS, COLS], 0.0, tl.float32)
    for begin in range(0, places, ROWS):
        inside = (begin + side < places)[:, None] & own[None, :]
        at = (begin + side)[:, None] * channels + channel[None, :]
        value = tl.load(picture + begun + at, inside, other=0).to(tl.float32) + more[None, :]
        total += tl.where(inside, value, 0)
    mean = tl.sum(tl.sum(total, 1), 0) / count
    total = tl.full([ROWS, COLS], 0.0, tl.float32)
    for begin in range(0, places, ROWS):
        inside = (begin + side < places)[:, None] & own[None, :]
        at = (begin + side)[:, None] * channels + channel[None, :]
        value = tl.load(picture + begun + at, inside, other=0).to(tl.float32) + more[None, :]
        apart = tl.where(inside, value - mean, 0)
        total += apart * apart
    variance = tl.sum(tl.sum(total, 1), 0) / count
    factor = tl.load(weight + channel, own, other=0).to(tl.float32) / tl.sqrt(variance + eps)
    shift = tl.load(bias + channel, own, other=0).to(tl.float32)
    for begin in range(0, places, ROWS):
        inside = (begin + side < places)[:, None] & own[None, :]
        at = (begin + side)[:, None] * channels + channel[None, :]
        value = tl.load(picture + begun + at, inside, other=0).to(tl.float32) + more[None, :]
        result = _activated((value - mean) * factor[None, :] + shift[None, :], SILU)
        tl.store(out + begun + at, result.to(out.dtype.element_ty), inside)


@triton.jit
def measure(
    picture, added, parts, places,
    C: tl.constexpr, G: tl.constexpr, PLACES: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    """Mean, and sum of squares apart from it, of every group in one part of a picture.

    The grid is `[parts, pictures]`; the parts of a picture are of one size, a multiple of `PLACES`.

    Args:
        picture: `[pictures, places, C]`.
        added: As for `norm_group`.
        parts: float32 `[pictures, parts, 2, G]`, which is written.
        places: Of a part.
        C: Channels.
        G: Groups; both are powers of 2.
        PLACES: Read at once.
        ADDED: Whether there is something to add.
    """
    number = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    side, channel = tl.arange(0, PLACES), tl.arange(0, C)
    more = tl.full([C], 0.0, tl.float32)
    if ADDED:
        more = tl.load(added + channel).to(tl.float32)
    mean, square = tl.full([G], 0.0, tl.float32), tl.full([G], 0.0, tl.float32)
    for begin in range(0, places, PLACES):
        place = number.to(tl.int64) * places + begin + side
        value = tl.load(picture + place[:, None] * C + channel[None, :]).to(tl.float32) + more[None, :]
        value = tl.reshape(value, [PLACES, G, C // G])
        here = tl.sum(tl.sum(value, 2), 0) / (PLACES * (C // G))
        apart = value - here[None, :, None]
        # two samples become one, by Chan, Golub and LeVeque
        share = PLACES / (begin + PLACES)
        step = here - mean
        square += tl.sum(tl.sum(apart * apart, 2), 0) + step * step * (begin * (C // G) * share)
        mean += step * share
    at = parts + number * (2 * G) + tl.arange(0, G)
    tl.store(at, mean)
    tl.store(at + G, square)


@triton.jit
def norm_part(
    picture, added, weight, bias, parts, out, places, eps,
    C: tl.constexpr, G: tl.constexpr, PLACES: tl.constexpr, PARTS: tl.constexpr,
    ADDED: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """One part of a picture, of which `measure` measured all; the grid and arguments are the same."""
    group, one, channel = tl.arange(0, G), tl.arange(0, PARTS), tl.arange(0, C)
    at = parts + (tl.program_id(1) * PARTS + one)[:, None] * (2 * G) + group[None, :]
    means, squares = tl.load(at), tl.load(at + G)
    mean = tl.sum(means, 0) / PARTS
    apart = means - mean[None, :]
    each = (places * (C // G)).to(tl.float32)
    variance = (tl.sum(squares, 0) + tl.sum(apart * apart, 0) * each) / (each * PARTS)
    mean = tl.reshape(tl.broadcast_to(mean[:, None], [G, C // G]), [C])
    factor = 1 / tl.sqrt(variance + eps)
    factor = tl.reshape(tl.broadcast_to(factor[:, None], [G, C // G]), [C])
    factor *= tl.load(weight + channel).to(tl.float32)
    shift = tl.load(bias + channel).to(tl.float32)
    if ADDED:
        mean -= tl.load(added + channel).to(tl.float32)
    begun = (tl.program_id(1) * PARTS + tl.program_id(0)).to(tl.int64) * places
    for begin in range(0, places, PLACES):
        place = begun + begin + tl.arange(0, PLACES)
        here = place[:, None] * C + channel[None, :]
        value = tl.load(picture + here).to(tl.float32) - mean[None, :]
        result = _activated(value * factor[None, :] + shift[None, :], SILU)
        tl.store(out + here, result.to(out.dtype.element_ty))


@triton.jit
def add(one, other, bias, out, size, C: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of two pictures and a bias.

    Args:
        one: `[size]`, pictures channels-last.
        other: The same.
        bias: float32 `[C]`.
        out: As `one`.
        size: Values of them all.
        C: Channels.
        BLOCK: Values of one program.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    at = begin + tl.arange(0, BLOCK)
    inside = at < size
    # the division of each value is of 32 bits, and by what the compiler knows
    channel = ((begin % C).to(tl.int32) + tl.arange(0, BLOCK)) % C
    value = tl.load(one + at, inside, other=0).to(tl.float32)
    value += tl.load(other + at, inside, other=0).to(tl.float32)
    value += tl.load(bias + channel, inside, other=0)
    tl.store(out + at, value.to(out.dtype.element_ty), inside)


@triton.jit
def norm_row(
    rows, more, weight, bias, total, out, channels, eps,
    COLS: tl.constexpr, MORE: tl.constexpr,
):  # fmt: skip
    """Layer norm of one row, or of the sum of two, which is written too; the grid is `[rows]`.

    Args:
        rows: `[rows, channels]`.
        more: The same, added to the rows before all else, where `MORE`.
        weight: `[channels]`.
        bias: `[channels]`.
        total: As `rows`: the sums, where `MORE`.
        out: As `rows`.
        channels: Of a row; at most `COLS`.
        eps: Added to the variance.
        COLS: A power of 2.
        MORE: Whether there is something to add.
    """
    col = tl.arange(0, COLS)
    own = col < channels
    at = tl.program_id(0).to(tl.int64) * channels + col
    value = tl.load(rows + at, own, other=0).to(tl.float32)
    if MORE:
        value += tl.load(more + at, own, other=0).to(tl.float32)
        tl.store(total + at, value.to(total.dtype.element_ty), own)
    mean = tl.sum(value, 0) / channels
    apart = tl.where(own, value - mean, 0)
    factor = 1 / tl.sqrt(tl.sum(apart * apart, 0) / channels + eps)
    scale = tl.load(weight + col, own, other=0).to(tl.float32) * factor
    result = apart * scale + tl.load(bias + col, own, other=0).to(tl.float32)
    tl.store(out + at, result.to(out.dtype.element_ty), own)


@triton.jit
def gate(both, out, size, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Values times GELU of their gates.

    Args:
        both: `[rows, 2 * WIDTH]`, values and then gates.
        out: `[rows, WIDTH]`.
        size: Values of `out`.
        WIDTH: Of a row.
        BLOCK: Values of one program.
    """
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    side = tl.arange(0, BLOCK)
    inside = begin + side < size
    # the division of each value is of 32 bits, and by what the compiler knows
    col = (begin % WIDTH).to(tl.int32) + side
    row = begin // WIDTH + col // WIDTH
    at = row * (2 * WIDTH) + col % WIDTH
    value = tl.load(both + at, inside, other=0).to(tl.float32)
    other = tl.load(both + at + WIDTH, inside, other=0).to(tl.float32)
    value *= 0.5 * other * (1 + tl.erf(other * 0.7071067811865476))
    tl.store(out + begin + side, value.to(out.dtype.element_ty), inside)
