"""Image steps on tensors of any device, each with a slow twin in `musetalk_cli.ops.reference`.

The functions here come from `musetalk_cli.ops.torch_ops`, which is imported when one of them is first used:
the reference versions need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musetalk_cli.ops.torch_ops import (
        gpu_gaussian_blur,
        gpu_image_blending,
        gpu_resize,
        gpu_unsharp_mask,
    )

__all__ = ["gpu_gaussian_blur", "gpu_image_blending", "gpu_resize", "gpu_unsharp_mask"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature Python asks for
    """Fetch a public function at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from musetalk_cli.ops import torch_ops

    return getattr(torch_ops, name)
