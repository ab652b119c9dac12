"""What a decoder draws, and the levels of a picture that come of it."""

from __future__ import annotations

import torch
from torch import Tensor


def levels(drawn: Tensor) -> Tensor:
    """Pictures of what a decoder drew: `x / 2 + 0.5`, cut to 0..1, times 255, rounded half to even.

    Args:
        drawn: `[B, 3, H, W]` in any format, RGB, -1..1 where it is neither black nor white.

    Returns:
        uint8 `[B, H, W, 3]`, BGR, contiguous; of an expanded tensor an expanded one. A value that is not a
        number becomes any level.
    """
    once = _once(drawn)
    rounded = (once.float() / 2 + 0.5).clamp(0, 1).mul(255).round()
    found = rounded.to(torch.uint8).flip(1).permute(0, 2, 3, 1).contiguous()
    return found if once is drawn else found.expand(drawn.permute(0, 2, 3, 1).shape)


def are_finite(drawn: Tensor) -> Tensor:
    """Bool `[B]`: False where a value of a picture `[B, 3, H, W]` is not finite, so that it means nothing."""
    return _once(drawn).flatten(1).isfinite().all(dim=1).expand(len(drawn))


def _once(drawn: Tensor) -> Tensor:
    """What an expanded tensor has in memory, so that a stand-in that draws one value costs nothing."""
    for dim, (size, stride) in enumerate(zip(drawn.shape, drawn.stride(), strict=True)):
        if size > 1 and stride == 0:
            drawn = drawn.narrow(dim, 0, 1)
    return drawn
