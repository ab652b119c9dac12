"""Norms, activations and sums of pictures and rows, in Triton's kernels and in tensor operations.

PyTorch's group norm on CUDA takes its input contiguous: a picture channels-last is copied first, and once
more for the next convolution. The kernels here read it as it lies, with the bias of the convolution before
and with the activation behind: a small picture once, a large one twice, and each is written once. All is
computed in float32, whatever the pictures are in.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import wrap_torch_function

WHOLE = 1 << 15
"""Values of a group, up to powers of 2, that one program does alone: a cache holds them."""
PARTS, AT_ONCE = 64, 4096
"""Into how many parts a larger picture is cut, and how many values a program reads at once."""
WARPS = 8
BLOCK = 1024


def kernels() -> ModuleType:
    """The kernels; ImportError where there is no Triton."""
    from musetalk_cli.ops import norm_kernels

    return norm_kernels


@wrap_torch_function(lambda name, grid, *given, **options: given)  # noqa: ARG005 - the tensors alone
def launch(name: str, grid: tuple[int, ...], *given: object, **options: int | bool) -> None:
    """Launch a kernel; what counts work sees it as it sees PyTorch's own functions.

    Args:
        name: Of the kernel.
        grid: Its programs.
        given: Its arguments; tensors that it reads and tensors that it writes.
        options: What the compiler knows, and how it compiles.
    """
    getattr(kernels(), name)[grid](*given, **options)


def eager_norm(picture: Tensor, norm: nn.GroupNorm, added: Tensor | None, *, silu: bool) -> Tensor:
    """What `fused_norm` computes, in tensor operations.

    Args:
        picture: `[B, C, ...]`.
        norm: Groups, weights and epsilon.
        added: `[C]`, added before all else, or None.
        silu: Put SiLU behind it.
    """
    if added is not None:
        picture = picture + added.to(picture.dtype).view(-1, *[1] * (picture.dim() - 2))
    result = norm(picture)
    return functional.silu(result) if silu else result


def fused_norm(picture: Tensor, norm: nn.GroupNorm, added: Tensor | None, *, silu: bool) -> Tensor:
    """Group norm of pictures, with a bias before it and SiLU behind it, in one launch or two.

    Args:
        picture: `[B, C, ...]`; one that is not channels-last is copied first.
        norm: Groups, weights and epsilon.
        added: `[C]`, added before all else, or None.
        silu: Put SiLU behind it.

    Returns:
        Of the picture's shape and dtype, channels-last.
    """
    rows = picture.flatten(2).transpose(1, 2).contiguous()  # a view of what is channels-last
    count, places, channels = rows.shape
    groups = norm.num_groups
    width = channels // groups
    out, chosen = torch.empty_like(rows), {"ADDED": added is not None, "SILU": silu}
    tensors = (norm.weight if added is None else added, norm.weight, norm.bias)
    if not _in_parts(places, channels, groups):
        launch(
            "norm_group",
            (groups, count),
            *(rows, *tensors, out, places, channels, norm.eps),
            **tile(width),
            **chosen,
            num_warps=WARPS,
        )
    else:
        parts = torch.empty(count, PARTS, 2, groups, dtype=torch.float32, device=rows.device)
        cut = {"C": channels, "G": groups, "PLACES": AT_ONCE // channels, "num_warps": WARPS}
        each = places // PARTS
        grid = (PARTS, count)
        launch("measure", grid, rows, tensors[0], parts, each, **cut, ADDED=chosen["ADDED"])
        launch("norm_part", grid, rows, *tensors, parts, out, each, norm.eps, **cut, PARTS=PARTS, **chosen)
    return out.transpose(1, 2).view(picture.shape)


def tile(width: int) -> dict[str, int]:
    """Places and channels that a program reads at once of a group of so many channels."""
    cols = power(width)
    return {"WIDTH": width, "ROWS": max(1, AT_ONCE // cols), "COLS": cols}


def fits(places: int, channels: int, groups: int) -> bool:
    """True where `fused_norm` can do pictures of so many places, channels and groups."""
    small = power(places) * power(channels // groups) <= WHOLE
    return small or _in_parts(places, channels, groups)


def _in_parts(places: int, channels: int, groups: int) -> bool:
    whole = power(places) * power(channels // groups)
    even = channels == power(channels) <= AT_ONCE and groups == power(groups)
    return whole > WHOLE and even and places % (PARTS * (AT_ONCE // channels)) == 0


def fused_add(one: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    """The sum of two pictures `[B, C, H, W]` and a bias, float32 `[C]`, in one launch; channels-last."""
    first, second = (each.contiguous(memory_format=torch.channels_last) for each in (one, other))
    out = torch.empty_like(first)
    grid = (-(-out.numel() // BLOCK),)
    launch("add", grid, first, second, bias, out, out.numel(), C=out.shape[1], BLOCK=BLOCK)
    return out


def fused_row_norm(rows: Tensor, more: Tensor | None, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """The sum of rows and its layer norm, in one launch.

    Args:
        rows: `[..., C]`.
        more: The same, added to them, or None.
        norm: Over the last dimension, with weight and bias.

    Returns:
        The sum, which is `rows` where there is nothing to add, and the norm of what was not rounded yet.
    """
    rows = rows.contiguous()
    given = rows if more is None else more.contiguous()
    out, channels = torch.empty_like(rows), rows.shape[-1]
    total = rows if more is None else torch.empty_like(rows)
    launch(
        "norm_row",
        (rows.numel() // channels,),
        *(rows, given, norm.weight, norm.bias, total, out, channels, norm.eps),
        COLS=power(channels),
        MORE=more is not None,
    )
    return total, out


def eager_gate(both: Tensor) -> Tensor:
    """What `fused_gate` computes, in tensor operations."""
    values, gates = both.chunk(2, dim=-1)
    return values * functional.gelu(gates)


def fused_gate(both: Tensor) -> Tensor:
    """Values `[..., C]` times GELU of their gates, both in `[..., 2 * C]`, in one launch."""
    both = both.contiguous()
    width = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], width)
    launch("gate", (-(-out.numel() // BLOCK),), both, out, out.numel(), WIDTH=width, BLOCK=BLOCK)
    return out


def power(size: int) -> int:
    """The smallest power of 2 that is not smaller."""
    return 1 << (size - 1).bit_length()
