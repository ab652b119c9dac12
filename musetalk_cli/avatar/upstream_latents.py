"""The latents of an avatar that MuseTalk prepared: one tensor, or a list of them, in torch's own file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.avatar.data import LATENT_BYTES, LATENT_SHAPE
from musetalk_cli.budget import check_budget
from musetalk_cli.errors import AvatarError

if TYPE_CHECKING:
    from torch import Tensor

_HINT = "Prepare the avatar again from its video."


def load_latents(path: Path, frames: int) -> Sequence[Tensor]:
    """The stored latents of so many frames, unconverted and unread: a tensor, or a list of tensors."""
    import torch

    from musetalk_cli.nets.torch_files import TorchFileError, open_torch

    if not path.is_file():
        raise AvatarError(f"There is no file at {path}.", _HINT)
    check_budget(2 * frames * LATENT_BYTES, f"What {path} holds", AvatarError)
    try:
        value = open_torch(path, AvatarError, tensors=frames)
    except OSError as error:
        raise AvatarError(f"{path} cannot be read: {error.strerror or error}.", _HINT) from error
    except TorchFileError as error:
        raise AvatarError(f"{path} is not a file of tensors: it {error}.", _HINT) from error
    if isinstance(value, torch.Tensor) and value.dim() == 4 and value.layout is torch.strided:
        return value  # type: ignore[return-value]  # a tensor is the sequence of its rows
    if isinstance(value, (list, tuple)) and all(isinstance(entry, torch.Tensor) for entry in value):
        return value
    raise AvatarError(f"{path} does not hold the latents of an avatar.", _HINT)


def join_latents(path: Path, latents: Sequence[Tensor]) -> Tensor:
    """One float32 `[n, 8, 32, 32]`, where every part is of that shape and finite."""
    import torch

    rows = torch.empty(len(latents), *LATENT_SHAPE)
    for number, entry in enumerate(latents):
        plain = entry.layout is torch.strided and not entry.is_quantized and entry.device.type == "cpu"
        if (
            not plain
            or not entry.is_floating_point()
            or tuple(entry.shape) not in {LATENT_SHAPE, (1, *LATENT_SHAPE)}
        ):
            raise AvatarError(f"Entry {number} of {path} is not a latent of 1 x 8 x 32 x 32 numbers.", _HINT)
        rows[number] = entry.detach().reshape(LATENT_SHAPE)
        if not bool(torch.isfinite(rows[number]).all()):
            raise AvatarError(f"Entry {number} of {path} is not finite.", _HINT)
    return rows
