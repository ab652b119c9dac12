"""The demo bundle's networks: the classes of the real ones, small enough for two cores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from musetalk_cli.nets import modules

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

WIDTH = 128
"""Channels of an audio token."""
HEADS = 4
LAYERS = 4
_HERE = Path(__file__)
_SHARPNESS = 1.5
"""How narrowly a head begins to look; less sees the whole window, more a single row."""


def encoder_config() -> dict[str, Any]:
    """The audio encoder, width 128."""
    return {
        "model_type": "whisper",
        "d_model": WIDTH,
        "encoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "encoder_ffn_dim": 4 * WIDTH,
        "decoder_layers": 1,
        "decoder_attention_heads": HEADS,
        "decoder_ffn_dim": 4 * WIDTH,
        "num_mel_bins": 80,
        "max_source_positions": 1500,
    }


def extractor_config() -> dict[str, Any]:
    """The published log-mel settings."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 80,
        "sampling_rate": 16000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
    }


def vae_config() -> dict[str, Any]:
    """The VAE: one layer a block, no attention; two groups a norm keep the colours apart."""
    channels = [16, 16, 32, 64]
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "relu",
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
        "norm_num_groups": 2,
        "out_channels": 3,
        "sample_size": 256,
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
    }


def unet_config() -> dict[str, Any]:
    """The UNet: sound enters at 8x8, where a place sees the whole mouth."""
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": HEADS,
        "block_out_channels": [32, 64, 128],
        "cross_attention_dim": WIDTH,
        "down_block_types": ["DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"],
        "in_channels": 8,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "out_channels": 4,
        "sample_size": 32,
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"],
    }


def build_encoder() -> WhisperEncoder:
    """The audio encoder with random weights whose attention begins by looking near by."""
    encoder = modules.build_encoder(encoder_config(), _HERE)
    for layer in encoder.layers:
        _look_near(layer.self_attn)
    return encoder


def build_vae(scaling_factor: float = 1.0) -> AutoencoderKL:
    """The VAE with random weights."""
    return modules.build_vae(vae_config() | {"scaling_factor": scaling_factor}, _HERE)


def build_unet() -> UNet2DConditionModel:
    """The UNet with random weights."""
    return modules.build_unet(unet_config(), _HERE)


def _look_near(attention: nn.Module) -> None:
    """Let each head begin by attending to rows at a fixed small distance.

    Whisper's positions are sines and cosines of the row at one frequency a channel pair. The dot product of
    two of them, one of them turned by the angle of `distance` rows, is largest `distance` rows apart; a
    random start has to find this out from speech, which takes most of the training.
    """
    half = WIDTH // 2
    rates = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half))
    size = WIDTH // HEADS
    query, key = cast(nn.Linear, attention.q_proj), cast(nn.Linear, attention.k_proj)
    with torch.no_grad():
        query.weight.mul_(0.1)
        key.weight.mul_(0.1)
        for head, distance in enumerate((-4, -1, 1, 4)):
            for place, channel in enumerate(range(0, 32, 2) if head % 2 else range(1, 32, 2)):
                row = head * size + 2 * place
                turn = float(rates[channel] * distance)
                key.weight[row, channel] += _SHARPNESS
                key.weight[row + 1, half + channel] += _SHARPNESS
                query.weight[row, channel] += _SHARPNESS * math.cos(turn)
                query.weight[row, half + channel] += _SHARPNESS * math.sin(turn)
                query.weight[row + 1, half + channel] += _SHARPNESS * math.cos(turn)
                query.weight[row + 1, channel] -= _SHARPNESS * math.sin(turn)
