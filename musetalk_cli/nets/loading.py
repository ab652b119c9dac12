"""Weights into a network: strict, without running code from a file, and with one copy in memory.

A network is built without memory first. Each tensor is then read, converted to the wanted number format
and device, copied out of the file's mapping and assigned, so that the host never holds much more than the
weights in their wanted format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from musetalk_cli.budget import check_budget
from musetalk_cli.errors import ModelError
from musetalk_cli.nets.modules import on_meta
from musetalk_cli.nets.torch_files import TorchFileError, check_safetensors_header, open_torch

M = TypeVar("M", bound=nn.Module)
NAMED_IN_ERRORS = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """How the names in a file become the names in the network.

    Attributes:
        rename: Gives the network's name of a tensor, or None for one that belongs to a part never loaded.
        flatten: True where a `[n, m, 1, 1]` convolution stands for an `[n, m]` matrix.
    """

    rename: Callable[[str], str | None]
    flatten: bool = False


_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _vae_name(name: str) -> str:
    return _OLD_ATTENTION.sub(lambda m: f"{m[1]}.{_NEW_ATTENTION[m[2]]}.{m[3]}", name)


def _encoder_name(name: str) -> str | None:
    name = name.removeprefix("model.")
    if name.startswith(("decoder.", "proj_out.")):
        return None
    return name.removeprefix("encoder.") if name.startswith("encoder.") else f"(outside the encoder) {name}"


UNET_RULES = Rules(lambda name: name)
VAE_RULES = Rules(_vae_name, flatten=True)
"""The published file uses the attention names of early diffusers."""
ENCODER_RULES = Rules(_encoder_name)
"""Whole Whisper models carry a decoder, and those for generation also a prefix and an output layer."""


class _Weights(Protocol):
    """An open weights file."""

    shapes: dict[str, tuple[int, ...]]

    def take(self, name: str) -> Tensor:
        """A tensor on the host, possibly in the file's mapping; asked for once, then let go."""


class _Torch:
    """The tensors of a torch pickle."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def take(self, name: str) -> Tensor:
        return self._tensors.pop(name)


class _Safetensors:
    """The tensors of a safetensors file."""

    def __init__(self, path: Path) -> None:
        check_safetensors_header(path)
        file: Any = safe_open(path, framework="pt", device="cpu")
        self._file = file
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}

    def take(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


def load_weights(
    build: Callable[[], M], path: Path, device: torch.device, dtype: torch.dtype, rules: Rules = UNET_RULES
) -> M:
    """Build a network and fill it from a file.

    Args:
        build: Makes the network; called with the meta device as the default.
        path: A `.safetensors` file, or a torch pickle under any other name.
        device: Where the network shall be.
        dtype: Its number format.
        rules: How the file's names map to the network's.

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        ModelError: The file cannot be read, holds anything but tensors, does not hold exactly the network's
            tensors, or a value is not finite in `dtype`.
    """
    module = on_meta(build)
    needed = sum(tensor.numel() * _bytes_of(tensor, dtype) for tensor in module.state_dict().values())
    check_budget(needed, f"The network that {path} is for", ModelError)
    with _open(path) as weights:
        wanted: dict[str, Tensor] = dict(module.state_dict())
        state = {
            name: _convert(weights.take(source), wanted[name], device, dtype, f"{source} in {path}")
            for name, source in _match(wanted, weights, path, rules).items()
        }
    module.load_state_dict(state, strict=True, assign=True)
    _fill_buffers(module, build, device, dtype)
    return module.eval().requires_grad_(False)


def named_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a weights file by the file's own names, on the host and possibly in the file's mapping.

    Raises:
        ModelError: The file cannot be read, or holds anything but tensors.
    """
    with _open(path) as weights:
        return {name: weights.take(name) for name in list(weights.shapes)}


def _bytes_of(tensor: Tensor, dtype: torch.dtype) -> int:
    return dtype.itemsize if tensor.is_floating_point() else tensor.dtype.itemsize


@contextmanager
def _open(path: Path) -> Iterator[_Weights]:
    try:
        weights: _Weights = _Safetensors(path) if path.suffix == ".safetensors" else _Torch(_read_torch(path))
    except TorchFileError as error:
        raise ModelError(f"{path} {error}, so it is not loaded.", _REFETCH) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    except SafetensorError as error:
        raise ModelError(f"{path} is not a weights file, or is truncated.", _REFETCH) from error
    yield weights


_REFETCH = "Delete it and fetch it again."


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The named tensors of a torch file; mapped, not read, where the format allows it."""
    data = open_torch(path, ModelError)
    if isinstance(data, dict) and set(data) == {"state_dict"}:
        data = data["state_dict"]
    if not isinstance(data, dict) or not data:
        raise ModelError(f"{path} is not a weights file: it holds no named tensors.")
    for name, value in data.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.layout != torch.strided:
            raise ModelError(f"{path} holds more than tensors: {str(name)[:80]} is a {type(value).__name__}.")
    return dict(data)


def _match(wanted: dict[str, Tensor], weights: _Weights, path: Path, rules: Rules) -> dict[str, str]:
    """The file's name of every tensor of the network.

    Raises:
        ModelError: A tensor is missing, is not the network's, or has another shape.
    """
    sources: dict[str, str] = {}
    unexpected: list[str] = []
    for source in weights.shapes:
        name = rules.rename(source)
        if name is None:
            continue
        if name not in wanted or name in sources:
            unexpected.append(source)
        else:
            sources[name] = source
    missing = [name for name in wanted if name not in sources]
    wrong = [
        f"{source} is {list(weights.shapes[source])}, wanted {list(wanted[name].shape)}"
        for name, source in sources.items()
        if not _fits(weights.shapes[source], tuple(wanted[name].shape), rules)
    ]
    groups = (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", wrong))
    complaints = [f"{len(names)} {what} ({_some(names)})" for what, names in groups if names]
    if complaints:
        raise ModelError(
            f"The tensors in {path} do not fit its configuration: {'; '.join(complaints)}.",
            f"Weights and configuration in {path.parent} must come from the same model.",
        )
    return sources


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...], rules: Rules) -> bool:
    return shape == wanted or (rules.flatten and len(wanted) == 2 and shape == (*wanted, 1, 1))


def _some(names: list[str]) -> str:
    rest = len(names) - NAMED_IN_ERRORS
    return ", ".join(names[:NAMED_IN_ERRORS]) + (f", and {rest} more" if rest > 0 else "")


def _convert(tensor: Tensor, wanted: Tensor, device: torch.device, dtype: torch.dtype, what: str) -> Tensor:
    """A contiguous copy in the wanted format; checked where it lies.

    Raises:
        ModelError: It is not of the wanted kind, or not finite in `dtype`.
    """
    if tensor.is_quantized or tensor.is_floating_point() != wanted.is_floating_point():
        raise ModelError(f"{what} holds {tensor.dtype}, which is not what the network needs.")
    if not wanted.is_floating_point():
        return tensor.reshape(wanted.shape).to(device, wanted.dtype, copy=True).contiguous()
    result = torch.empty(wanted.shape, dtype=dtype, device=device).copy_(tensor.reshape(wanted.shape))
    if result.numel() and not torch.stack(torch.aminmax(result)).isfinite().all():
        raise ModelError(f"{what} is not finite in {str(dtype).removeprefix('torch.')}.")
    return result


def _fill_buffers(
    module: nn.Module, build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype
) -> None:
    """Give the buffers that no file holds the values they are built with."""
    names = [name for name, buffer in module.named_buffers() if buffer.is_meta]
    if not names:
        return
    with torch.device("cpu"):
        built = build()
    for name in names:
        buffer = built.get_buffer(name)
        owner, _, leaf = name.rpartition(".")
        kind = dtype if buffer.is_floating_point() else buffer.dtype
        setattr(module.get_submodule(owner), leaf, buffer.to(device, kind))
