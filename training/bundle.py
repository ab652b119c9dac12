"""Writes trained networks as a bundle in the published layout, in fp16."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from training import nets

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch import nn
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

NAME = "demo"
WINDOW_S = 5
"""Seconds of sound that the encoder hears at once; `benchmarks/encoder_window.md` has what that costs."""
CPU_BATCH = 13
"""The larger chunk of 0.5 s at 25 frames a second."""


def write(
    folder: Path,
    encoder: WhisperEncoder,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    card: Mapping[str, Any],
) -> None:
    """Write a bundle.

    Args:
        folder: Of the bundle; files of that name are replaced.
        encoder: The audio encoder.
        vae: With its scaling factor.
        unet: The UNet.
        card: What else `bundle.json` says.
    """
    vae_config = nets.vae_config() | {"scaling_factor": vae.config.scaling_factor}
    _part(folder / "musetalkV15", "unet", unet, {"musetalk.json": nets.unet_config()})
    _part(folder / "sd-vae", "diffusion_pytorch_model", vae, {"config.json": vae_config})
    configs = {"config.json": nets.encoder_config(), "preprocessor_config.json": nets.extractor_config()}
    _part(folder / "whisper", "model", encoder, configs, prefix="encoder.")
    chosen = {"name": NAME, "cpu_precision": "bf16", "cpu_batch": CPU_BATCH, "window_s": WINDOW_S}
    _json(folder / "bundle.json", chosen | dict(card))


def _part(
    folder: Path, name: str, module: nn.Module, configs: Mapping[str, object], prefix: str = ""
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        prefix + key: value.detach().to(
            "cpu", torch.float16, copy=True, memory_format=torch.contiguous_format
        )
        for key, value in module.state_dict().items()
    }
    path = folder / f"{name}.safetensors"
    save_file(tensors, path)
    path.chmod(0o644)
    for file, config in configs.items():
        _json(folder / file, config)


def _json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
