"""The networks of v1.5 without their numbers."""

import torch

from musetalk_cli.nets import modules
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.device import conv_layout
from musetalk_cli.nets.random_v15 import NOWHERE, encoder_config, unet_config, vae_config


def full_size(dtype=torch.float16):
    """A bundle on a pretended GPU that is on `meta` inside; its weights have the layout of a real one's."""
    device = torch.device("cuda")

    def build(make):
        return modules.on_meta(make).to(dtype).eval().to_empty(device=device)

    with modules.quiet():
        unet = build(lambda: modules.build_unet(unet_config(), NOWHERE))
        vae = build(lambda: modules.build_vae(vae_config(), NOWHERE))
        encoder = build(lambda: modules.build_encoder(encoder_config(), NOWHERE))
    extractor = modules.build_feature_extractor({}, NOWHERE)
    for network in (unet, vae):
        network.to(memory_format=conv_layout(device, dtype))
    return Bundle("random-v15", "v15", unet, vae, encoder, extractor, device, dtype)
