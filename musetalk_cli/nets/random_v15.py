"""The full-size v1.5 networks with random weights: the real cost, without a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from musetalk_cli.nets import modules

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from musetalk_cli.nets.modules import Config

M = TypeVar("M", bound=nn.Module)

SEED = 15
POOL_SIZE = 4_194_319
"""Random numbers drawn; a prime, so that no two rows of a weight repeat each other."""
NOWHERE = Path("random-v15")


def unet_config() -> Config:
    """The published `musetalk.json`, in numbers."""
    return {
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 384,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "in_channels": 8,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }


def vae_config() -> Config:
    """The published configuration of sd-vae-ft-mse, in numbers."""
    return {
        "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "out_channels": 3,
        "sample_size": 256,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    }


def encoder_config() -> Config:
    """The published configuration of whisper-tiny, as far as its encoder goes."""
    return {
        "d_model": 384,
        "encoder_attention_heads": 6,
        "encoder_ffn_dim": 1536,
        "encoder_layers": 4,
        "max_source_positions": 1500,
        "num_mel_bins": 80,
    }


def tiny_decoder_config() -> Config:
    """The published configuration of TAESD, in numbers."""
    return {
        "act_fn": "relu",
        "decoder_block_out_channels": [64, 64, 64, 64],
        "in_channels": 3,
        "latent_channels": 4,
        "num_decoder_blocks": [3, 3, 3, 1],
        "out_channels": 3,
        "scaling_factor": 1.0,
        "upsampling_scaling_factor": 2,
    }


def build(
    device: torch.device, dtype: torch.dtype
) -> tuple[UNet2DConditionModel, AutoencoderKL, WhisperEncoder, WhisperFeatureExtractor]:
    """The three networks and the feature extractor; the same numbers on every device, up to `dtype`."""
    pool = Pool(device, dtype)
    unet = pool.fill(lambda: modules.build_unet(unet_config(), NOWHERE))
    vae = pool.fill(lambda: modules.build_vae(vae_config(), NOWHERE))
    encoder = pool.fill(lambda: modules.build_encoder(encoder_config(), NOWHERE))
    return unet, vae, encoder, modules.build_feature_extractor({}, NOWHERE)


def build_vae(device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """The VAE alone."""
    return Pool(device, dtype).fill(lambda: modules.build_vae(vae_config(), NOWHERE))


def build_tiny_decoder(device: torch.device, dtype: torch.dtype) -> AutoencoderTiny:
    """The tiny decoder alone."""
    return Pool(device, dtype).fill(lambda: modules.build_tiny_decoder(tiny_decoder_config(), NOWHERE))


class Pool:
    """Normal random numbers, drawn once and handed out round and round."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(SEED)
        self._numbers = torch.randn(POOL_SIZE, generator=generator).to(device)
        self._next = 0
        self._device, self._dtype = device, dtype

    def fill(self, make: Callable[[], M]) -> M:
        """Build a network in its final format and place, and give it weights."""
        with modules.quiet(), torch.no_grad():
            module = modules.on_meta(make).to(self._dtype).to_empty(device=self._device)
            for part in module.modules():
                for name, parameter in part.named_parameters(recurse=False):
                    self._fill_parameter(parameter, part, name)
        return module.eval().requires_grad_(False)

    def _fill_parameter(self, parameter: Tensor, owner: nn.Module, name: str) -> None:
        """Weights ~ N(0, 1 / fan_in), so that activations keep their size; norms 1, biases 0."""
        if name == "bias":
            parameter.zero_()
        elif isinstance(owner, nn.GroupNorm | nn.LayerNorm):
            parameter.fill_(1)
        else:
            fan_in = max(1, parameter[0].numel())
            self._draw(parameter.view(-1), 1 / math.sqrt(fan_in))

    def _draw(self, flat: Tensor, scale: float) -> None:
        done = 0
        while done < len(flat):
            count = min(len(flat) - done, POOL_SIZE - self._next)
            flat[done : done + count] = self._numbers[self._next : self._next + count] * scale
            done += count
            self._next = (self._next + count) % POOL_SIZE
