"""What a decoder draws, and the levels of a picture that come of it."""

from __future__ import annotations

import torch
from torch import Tensor


def levels(drawn: Tensor) -> Tensor:
    """Pictures of what a decoder drew: `x / 2 + 0.5`, cut to 0..1, times 255, rounded half to even.

    Args:
        drawn: `[B, 3, H, W]` in any format, RGB, -1..1 where it is neither black nor white.

    Returns:
        uint8 `[B, H, W, 3]`, BGR, contiguous. A value that is not a number becomes any level.
    """
    rounded = (drawn.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    return rounded.to(torch.uint8).flip(1).permute(0, 2, 3, 1).contiguous()


def are_finite(drawn: Tensor) -> Tensor:
    """Bool `[B]`: False where a value of a picture `[B, 3, H, W]` is not finite, so that it means nothing."""
    return drawn.flatten(1).isfinite().all(dim=1)
