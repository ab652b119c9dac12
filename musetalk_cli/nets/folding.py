"""Networks without the work whose result is always the same.

The UNet makes its one step at timestep 0: what its blocks add for the timestep is a constant, and part of a
bias here. The scale that blocks divide by is 1, and dividing by 1 changes no bit. What is not exactly of the
kind that is known here stays as the library has it. Pictures keep the memory format that they come in.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets import unet_2d_blocks
from torch import Tensor, nn
from torch.nn import functional

log = logging.getLogger(__name__)

N = TypeVar("N", bound=nn.Module)

_BLOCKS = (
    unet_2d_blocks.CrossAttnDownBlock2D,
    unet_2d_blocks.CrossAttnUpBlock2D,
    unet_2d_blocks.DownBlock2D,
    unet_2d_blocks.UNetMidBlock2DCrossAttn,
    unet_2d_blocks.UpBlock2D,
)
"""Those of a UNet that hand the timestep to their residual blocks and use it for nothing else."""


class FoldedResnet(nn.Module):
    """A residual block that adds no timestep and divides by nothing.

    Args:
        block: The library's, of which it takes the parts.
    """

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.conv_shortcut, self.nonlinearity = block.conv_shortcut, block.nonlinearity

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """`[B, C, H, W]` to `[B, D, H, W]`; the timestep is not looked at."""
        hidden = self.conv1(self.nonlinearity(self.norm1(input_tensor)))
        hidden = self.conv2(self.nonlinearity(self.norm2(hidden)))
        kept = input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        result: Tensor = kept + hidden
        return result


class FoldedAttention:
    """diffusers' `AttnProcessor2_0` for what is neither masked nor divided."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,  # noqa: ARG002 - the library gives it, and None
        temb: Tensor | None = None,  # noqa: ARG002 - and this where there is a timestep
    ) -> Tensor:
        """`[B, N, C]` or `[B, C, H, W]` to the same shape, in the library's order of work."""
        hidden = hidden_states
        if hidden_states.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden = attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)
        heard = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = (
            states.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for states in (attn.to_q(hidden), attn.to_k(heard), attn.to_v(heard))
        )
        hidden = functional.scaled_dot_product_attention(query, key, value)
        hidden = attn.to_out[0](hidden.transpose(1, 2).flatten(2))
        if hidden_states.ndim == 4:
            hidden = hidden.transpose(1, 2).reshape(hidden_states.shape)
        result: Tensor = hidden + hidden_states if attn.residual_connection else hidden
        return result


class FoldedTransformer(nn.Module):
    """Transformer blocks on a picture whose memory format is kept.

    Args:
        whole: The library's, of which it takes the parts.
    """

    def __init__(self, whole: Transformer2DModel) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = whole.norm, whole.proj_in, whole.proj_out
        self.transformer_blocks = whole.transformer_blocks

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> tuple[Tensor]:
        """`[B, C, H, W]` and tokens `[B, T, width]` to `[B, C, H, W]`, alone in a tuple."""
        picture = self.proj_in(self.norm(hidden_states))
        places = picture.shape[2:]
        rows = picture.flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            rows = block(rows, encoder_hidden_states=encoder_hidden_states)
        picture = rows.transpose(1, 2).unflatten(2, places)
        if hidden_states.is_contiguous():
            picture = picture.contiguous()
        return (self.proj_out(picture) + hidden_states,)


class _Unused(nn.Module):
    """Stands where the timestep is made: gives numbers that nobody reads, and launches nothing."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.empty(1, 0, dtype=like.dtype, device=like.device), False)

    def forward(self, *_: object) -> Tensor:
        return self.get_buffer("nothing")


@torch.no_grad()
def fold(network: N) -> N:
    """A network that computes the same in fewer steps.

    Without a timestep all results are the same to the bit. A UNet's may differ in their last bits, since the
    timestep is part of a sum before it is rounded and not after; it is computed in fp32 in every format.

    Args:
        network: As it was loaded, in evaluation mode; it is not changed. It is always called at timestep 0.

    Returns:
        A copy that shares its tensors, all but a few biases.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    folded = copy.deepcopy(network, shared)
    if type(folded) is UNet2DConditionModel:
        _fold_timestep(folded)
    left = 0
    for name, part in list(folded.named_modules()):
        if isinstance(part, ResnetBlock2D) and _is_plain(part):
            folded.set_submodule(name, FoldedResnet(part))
        elif isinstance(part, Transformer2DModel) and _is_plain_transformer(part):
            folded.set_submodule(name, FoldedTransformer(part))
        elif isinstance(part, Attention) and _is_plain_attention(part):
            part.set_processor(FoldedAttention())
        else:
            left += isinstance(part, ResnetBlock2D | Transformer2DModel | Attention)
    if left:
        log.debug("%d blocks of the %s are not of a known kind, and stay.", left, type(network).__name__)
    return folded


def _fold_timestep(unet: UNet2DConditionModel) -> None:
    """Make the timestep part of the biases, where every use of it is known."""
    parts: list[Any] = [part for part in unet.modules() if hasattr(part, "time_emb_proj")]
    if not _knows_timestep(unet) or not all(_adds_timestep(part) for part in parts):
        log.debug("The timestep of the UNet is used in a way that is not known, and stays.")
        return
    step = torch.zeros(1, dtype=torch.int64, device=unet.device)
    embedding = copy.deepcopy(unet.time_embedding).float()(unet.time_proj(step))
    for part in parts:
        projection, conv = part.time_emb_proj, part.conv1
        added = functional.linear(
            part.nonlinearity(embedding), projection.weight.float(), projection.bias.float()
        )
        bias = (conv.bias.float() + added[0]).to(conv.bias.dtype)
        conv.bias = nn.Parameter(bias, requires_grad=False)
        part.time_emb_proj = None
    unet.time_proj = _Unused(unet.conv_in.weight)
    unet.time_embedding = _Unused(unet.conv_in.weight)


def _knows_timestep(unet: UNet2DConditionModel) -> bool:
    blocks = (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
    return (
        type(unet.time_proj) is Timesteps
        and type(unet.time_embedding) is TimestepEmbedding
        and unet.class_embedding is None
        and unet.time_embed_act is None
        and unet.config.addition_embed_type is None
        and all(type(block) in _BLOCKS for block in blocks)
    )


def _adds_timestep(part: nn.Module) -> bool:
    return (
        isinstance(part, ResnetBlock2D)
        and _keeps_size(part)
        and part.time_embedding_norm == "default"
        and not part.skip_time_act
        and part.output_scale_factor == 1
        and type(part.time_emb_proj) is nn.Linear
        and part.conv1.bias is not None
    )


def _keeps_size(part: ResnetBlock2D) -> bool:
    return type(part) is ResnetBlock2D and part.upsample is part.downsample is None


def _is_plain(part: ResnetBlock2D) -> bool:
    return (
        _keeps_size(part)
        and part.time_emb_proj is None
        and part.time_embedding_norm in {"default", "group"}
        and part.output_scale_factor == 1
    )


def _is_plain_attention(part: Attention) -> bool:
    added = ("spatial_norm", "norm_cross", "norm_q", "norm_k", "add_k_proj")
    return (
        type(part) is Attention
        and type(part.processor) is AttnProcessor2_0
        and part.rescale_output_factor == 1
        and all(getattr(part, name, None) is None for name in added)  # not every release has each
    )


def _is_plain_transformer(part: Transformer2DModel) -> bool:
    return (
        type(part) is Transformer2DModel
        and part.is_input_continuous
        and type(part.proj_in) is type(part.proj_out) is nn.Conv2d
    )
