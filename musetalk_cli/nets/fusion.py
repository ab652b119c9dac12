"""Networks on CUDA with fewer passes over what they hold: norm, activation, bias and sum in Triton's kernels.

What is fused is what `musetalk_cli.nets.folding` makes of a network. Weights are shared with it, and stay as
they are.
"""

from __future__ import annotations

import copy
import logging

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

from musetalk_cli.errors import first_line
from musetalk_cli.nets.folding import FoldedResnet, FoldedTransformer
from musetalk_cli.ops.norms import (
    eager_gate,
    eager_norm,
    fits,
    fused_add,
    fused_gate,
    fused_norm,
    fused_row_norm,
)

log = logging.getLogger(__name__)

FARTHEST = {torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""How far a trial's value may be from that in float64, by 1 and the value's size: a few roundings."""
TRIALS = ((320, 8), (512, 64))
"""Channels and side of pictures that are tried: one in one launch, and one in two."""
ROW = 320
"""Channels of rows that are tried."""


class FusedNorm(nn.Module):
    """Group norm with what comes right before and behind it.

    Args:
        norm: The library's.
        added: `[C]`, the bias of the convolution before it, or None.
        silu: An activation follows.
    """

    def __init__(self, norm: nn.GroupNorm, added: Tensor | None = None, *, silu: bool = False) -> None:
        super().__init__()
        self.norm, self._silu = norm, silu
        self.register_buffer("added", added, persistent=False)

    def forward(self, picture: Tensor) -> Tensor:
        """`[B, C, ...]` to the same shape."""
        norm, added = self.norm, self._buffers["added"]
        run = (
            fused_norm if fits(picture.shape[2:].numel(), norm.num_channels, norm.num_groups) else eager_norm
        )
        return run(picture, norm, added, silu=self._silu)


class FusedResnet(nn.Module):
    """A residual block whose convolutions leave their biases to what follows.

    Args:
        block: The folded one, of which it takes the parts.
    """

    def __init__(self, block: FoldedResnet) -> None:
        super().__init__()
        self.norm1 = FusedNorm(block.norm1, silu=True)
        self.norm2 = FusedNorm(block.norm2, block.conv1.bias, silu=True)
        self.conv1, self.conv2 = _without_bias(block.conv1), _without_bias(block.conv2)
        self.conv_shortcut = None if block.conv_shortcut is None else _without_bias(block.conv_shortcut)
        last = (block.conv2, block.conv_shortcut)
        bias = sum(conv.bias.float() for conv in last if conv is not None)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """`[B, C, H, W]` to `[B, D, H, W]`; the timestep is not looked at."""
        hidden = self.conv2(self.norm2(self.conv1(self.norm1(input_tensor))))
        kept = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return fused_add(kept, hidden, self.get_buffer("bias"))


class FusedBlock(nn.Module):
    """A transformer block that makes a sum where the norm behind it reads it, and its gates in one pass.

    Args:
        block: The library's, of which it takes the parts.
    """

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.attn1, self.attn2 = block.attn1, block.attn2
        gated, _, last = block.ff.net
        self.gated, self.last = gated.proj, last

    def forward(self, rows: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        """`[B, N, C]` and tokens `[B, T, width]` to `[B, N, C]`."""
        _, normed = fused_row_norm(rows, None, self.norm1)
        rows, normed = fused_row_norm(rows, self.attn1(normed), self.norm2)
        heard = self.attn2(normed, encoder_hidden_states=encoder_hidden_states)
        rows, normed = fused_row_norm(rows, heard, self.norm3)
        result: Tensor = rows + self.last(fused_gate(self.gated(normed)))
        return result


def fuse(*networks: nn.Module) -> None:
    """Fuse folded networks in a half format, if they are on CUDA and Triton's kernels work there.

    In fp32, which is asked for to have it exactly, they stay as they are. On `meta`, where what a GPU runs is
    counted, nothing can be tried.

    Args:
        networks: What `fold` gave; their modules are replaced.
    """
    weight = next(networks[0].parameters(), None)
    if weight is None:  # what stands in for networks holds none
        return
    if weight.dtype not in FARTHEST:
        return
    if weight.is_meta or (weight.device.type == "cuda" and works(weight.device, weight.dtype)):
        for network in networks:
            replace(network)


def replace(network: nn.Module) -> None:
    """Put fused modules in the place of those that are known."""
    for name, part in list(network.named_modules()):
        if isinstance(part, FoldedResnet) and _is_known(part):
            network.set_submodule(name, FusedResnet(part))
        elif isinstance(part, BasicTransformerBlock) and _is_known_block(part):
            network.set_submodule(name, FusedBlock(part))
        elif isinstance(part, FoldedTransformer):
            part.norm = FusedNorm(part.norm)
        elif isinstance(part, Attention) and isinstance(part.group_norm, nn.GroupNorm):
            part.group_norm = FusedNorm(part.group_norm)
        elif isinstance(getattr(part, "conv_norm_out", None), nn.GroupNorm) and isinstance(
            part.conv_act, nn.SiLU
        ):
            part.conv_norm_out, part.conv_act = FusedNorm(part.conv_norm_out, silu=True), nn.Identity()


def _is_known(block: FoldedResnet) -> bool:
    convs = [block.conv1, block.conv2, *([] if block.conv_shortcut is None else [block.conv_shortcut])]
    return isinstance(block.nonlinearity, nn.SiLU) and all(
        type(conv) is nn.Conv2d and conv.bias is not None for conv in convs
    )


def _is_known_block(block: BasicTransformerBlock) -> bool:
    parts = list(block.ff.net)
    return (
        type(block) is BasicTransformerBlock
        and block.norm_type == "layer_norm"
        and block.attn2 is not None
        and not block.only_cross_attention
        and block.pos_embed is None
        and not hasattr(block, "fuser")
        and block._chunk_size is None  # noqa: SLF001 - else it goes through the last part in pieces
        and [type(part) for part in parts] == [GEGLU, nn.Dropout, nn.Linear]
        and all(
            type(norm) is nn.LayerNorm and norm.weight is not None and norm.bias is not None
            for norm in (block.norm1, block.norm2, block.norm3)
        )
    )


def _without_bias(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution, which shares its weight."""
    bare = copy.copy(conv)
    bare._parameters = {**conv._parameters, "bias": None}  # noqa: SLF001 - a copy of its own
    return bare


def works(device: torch.device, dtype: torch.dtype) -> bool:
    """True where the kernels do on a device what they shall; said if not."""
    try:
        _try(device, dtype)
    except Exception as error:  # a compiler, a driver and a C compiler stand behind it: anything may fail
        log.warning("Norms and sums of the networks are not fused on this GPU: %s", first_line(error))
        return False
    return True


@torch.inference_mode()
def _try(device: torch.device, dtype: torch.dtype) -> None:
    """Compare norms, sums and gates with float64.

    Raises:
        RuntimeError: They differ.
    """
    random = torch.Generator().manual_seed(0)
    for channels, side in TRIALS:
        given = (torch.randn(1, channels, side, side, generator=random) * 3 + 10).to(dtype)
        added = torch.randn(channels, generator=random).to(dtype)
        norm = nn.GroupNorm(32, channels, eps=1e-6)
        exact = eager_norm(given.double(), norm.double(), added.double(), silu=True)
        norm = norm.to(device, dtype)
        here = given.to(device, memory_format=torch.channels_last)
        made = fused_norm(here, norm, added.to(device), silu=True)
        _compare(made, exact, dtype)
        total = fused_add(here, made, added.float().to(device))
        _compare(total, given.double() + made.cpu().double() + added.double()[:, None, None], dtype)
    rows, more = ((torch.randn(3, ROW, generator=random) * 3 + 10).to(dtype) for _ in range(2))
    both = rows.double() + more.double()
    row_norm = nn.LayerNorm(ROW, device=device, dtype=dtype)
    total, made = fused_row_norm(rows.to(device), more.to(device), row_norm)
    _compare(total, both, dtype)
    _compare(made, functional.layer_norm(both, (ROW,)), dtype)
    _compare(fused_gate(rows.to(device)), eager_gate(rows.double()), dtype)


def _compare(made: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    apart = ((made.cpu().double() - exact).abs() / (1 + exact.abs())).max().item()
    if not apart <= FARTHEST[dtype]:  # nor where it is no number
        raise RuntimeError(f"{apart:.2g} is too far from what a norm or a sum should be.")
