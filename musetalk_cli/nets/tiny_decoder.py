"""TAESD's decoder, a tiny one for the latents of Stable Diffusion 1, in the place of a model's own VAE."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.errors import ModelError
from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.loading import Rules, load_weights
from musetalk_cli.nets.published import require
from musetalk_cli.types import FACE_SIZE, LATENT_SIZE

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderTiny

    from musetalk_cli.nets.bundle import Bundle

LATENTS_OF_SD = 0.18215
"""The scaling factor of the VAEs whose latents TAESD knows: of Stable Diffusion 1, and tuned from that."""
_RULES = Rules(lambda name: None if name.startswith("encoder.") else name)
"""Its own encoder is not needed: avatars are prepared with the model's."""


def load_tiny_decoder(name: str, models_dir: Path, bundle: Bundle) -> AutoencoderTiny:
    """Load a tiny decoder for the latents of a bundle.

    It takes latents as the UNet gives them, scaled, and gives faces in -1..1, both as diffusers has it.

    Args:
        name: Which of the published ones; random numbers where those of the bundle are.
        models_dir: The models folder.
        bundle: The networks that it is used with; where they are, and in their format.

    Raises:
        ModelError: The bundle's latents are others, or the files are missing, broken or of another network.
    """
    scale = bundle.vae.config.scaling_factor
    if scale != LATENTS_OF_SD:
        raise ModelError(
            f"--vae {name} cannot be used with model {bundle.name}: it knows the latents of VAEs whose "
            f"scaling_factor is {LATENTS_OF_SD}, and that of this model is {scale}.",
            "Leave --vae out, or use the published model v15 or v1.",
        )
    if bundle.random:
        return random_v15.build_tiny_decoder(bundle.device, bundle.dtype)
    return load_published(name, models_dir, bundle.device, bundle.dtype)


def load_published(name: str, models_dir: Path, device: torch.device, dtype: torch.dtype) -> AutoencoderTiny:
    """Load a tiny decoder from its published files.

    Raises:
        ModelError: They are missing, broken, or of another network.
    """
    config_file, weights = require(name, models_dir)
    config = modules.read_config(config_file, "_class_name", "AutoencoderTiny")
    decoder = load_weights(
        partial(modules.build_tiny_decoder, config, config_file), weights, device, dtype, _RULES
    )
    _check(decoder, config_file)
    return decoder


def _check(decoder: AutoencoderTiny, path: Path) -> None:
    """Refuse a decoder that does not make faces of latents.

    Raises:
        ModelError: It takes or gives something else.
    """
    config = decoder.config
    growth = config.upsampling_scaling_factor ** (len(config.num_decoder_blocks) - 1)
    for what, found, needed in (
        ("latent_channels", config.latent_channels, 4),
        ("out_channels", config.out_channels, 3),
        ("the growth of a picture", growth, FACE_SIZE // LATENT_SIZE),
        ("scaling_factor", config.scaling_factor, 1),
    ):
        if found != needed:
            raise ModelError(
                f"{path} describes another network: {what} is {found!r}, and {needed} is needed."
            )
