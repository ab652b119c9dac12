"""The networks without their numbers, and what they launch, compute and move: on any machine, in seconds.

They are those that the engine runs on a GPU with Triton: on `meta` too a generator folds and fuses them.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from musetalk_cli.measure.work import Work
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.ops.norms import launch

META = torch.device("meta")
HALF = torch.bfloat16
"""On `meta` it stands for fp16 too, which has as many bytes: in it the networks are channels-last there."""
LAUNCHES_NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"}


def without_numbers(bundle: Bundle) -> Bundle:
    """The networks as they are, on `meta` and in a format of two bytes: no memory, and no arithmetic.

    Args:
        bundle: The networks; they stay as they are.
    """

    def blank(network: nn.Module) -> Any:  # noqa: ANN401 - the same class
        held = [*network.parameters(), *network.buffers()]
        # to the copy every tensor is one that was copied already
        memo: dict[int, object] = {id(tensor): _blank(tensor) for tensor in held}
        return copy.deepcopy(network, memo)

    def channels_last(network: nn.Module) -> Any:  # noqa: ANN401 - the same class
        return blank(network).to(memory_format=torch.channels_last)

    return dataclasses.replace(
        bundle,
        unet=channels_last(bundle.unet),
        vae=channels_last(bundle.vae),
        decoder=None if bundle.decoder is None else channels_last(bundle.decoder),
        audio_encoder=blank(bundle.audio_encoder),
        device=META,
        dtype=HALF,
    )


def _blank(tensor: Tensor) -> Tensor:
    dtype = HALF if tensor.is_floating_point() else tensor.dtype
    empty = torch.empty_like(tensor, device=META, dtype=dtype)
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def count(work: Callable[..., object], *args: object) -> Work:
    """What some work on `meta` would launch on a GPU.

    Args:
        work: A function. Where it is decorated it is called as it was before: in inference mode operators
            that are made of others would stay whole.
        args: What it is called with; tensors without numbers.
    """
    counted = Work()
    with torch.no_grad(), _Whole(counted), _Operators(counted):
        inspect.unwrap(work)(*args)
    return counted


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tells every operator that a device would run."""

    def __init__(self, counted: Work) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counted = counted

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator; what it is called with; what it gives
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        given = kwargs or {}
        result = func(*args, **given)
        name = func.name().split("::")[1].split(".")[0]
        if name == "convolution" and result.dim() == 4 and result.is_meta:
            # as cuDNN gives it, whose weights are so
            result = result.contiguous(memory_format=torch.channels_last)
        written = _tensors((result,))
        if not func.is_view and name not in LAUNCHES_NOTHING and any(one.device == META for one in written):
            self._counted(name, _tensors((*args, *given.values())), written)
        return result


class _Whole(TorchFunctionMode):
    """What a GPU does in one launch stays whole: attention, and kernels of our own, of which none runs."""

    def __init__(self, counted: Work) -> None:
        super().__init__()
        self._counted = counted

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401 - a function; what it is called with; what it gives
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is functional.scaled_dot_product_attention and args[0].device == META:
            query, key, value = args[:3]
            # laid out as fused attention gives it: the heads of a row side by side
            batch, heads, rows, _ = query.shape
            result = query.new_empty(batch, rows, heads, value.shape[-1]).transpose(1, 2)
            self._counted("scaled_dot_product_attention", (query, key, value), (result,))
            return result
        if func is launch and any(isinstance(one, Tensor) and one.is_meta for one in args):
            name, _, *given = args
            # what it does not read is given something else that it does
            self._counted(name, list({id(one): one for one in _tensors(given)}.values()), ())
            return None
        return func(*args, **(kwargs or {}))


def _tensors(values: Sequence[object]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found
