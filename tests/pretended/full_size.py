"""The networks of v1.5 without their numbers."""

import torch

from musetalk_cli.nets import modules
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.device import conv_layout
from musetalk_cli.nets.random_v15 import (
    NOWHERE,
    encoder_config,
    tiny_decoder_config,
    unet_config,
    vae_config,
)

CUDA = torch.device("cuda")


def full_size(dtype=torch.float16):
    """A bundle on a pretended GPU that is on `meta` inside; its weights have the layout of a real one's."""
    unet = _build(lambda: modules.build_unet(unet_config(), NOWHERE), dtype)
    vae = _build(lambda: modules.build_vae(vae_config(), NOWHERE), dtype)
    encoder = _build(lambda: modules.build_encoder(encoder_config(), NOWHERE), dtype)
    extractor = modules.build_feature_extractor({}, NOWHERE)
    for network in (unet, vae):
        network.to(memory_format=conv_layout(CUDA, dtype))
    return Bundle("random-v15", "v15", unet, vae, encoder, extractor, CUDA, dtype)


def tiny_decoder(dtype=torch.float16):
    """TAESD's decoder, likewise."""
    decoder = _build(lambda: modules.build_tiny_decoder(tiny_decoder_config(), NOWHERE), dtype)
    return decoder.to(memory_format=conv_layout(CUDA, dtype))


def _build(make, dtype):
    with modules.quiet():
        return modules.on_meta(make).to(dtype).eval().to_empty(device=CUDA)
