"""Networks that are none, for what is not about their cost: the engine takes them, and they take no time."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

from musetalk_cli.nets.audio_encoder import EncodeRequest
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.generator import Generator
from musetalk_cli.types import FACE_SIZE

TOKEN_WIDTH = 8


class _Network(nn.Module):
    """Passes latents on, and makes a grey face of any."""

    config = SimpleNamespace(cross_attention_dim=TOKEN_WIDTH, scaling_factor=1.0, encoder_layers=1)

    def forward(self, latents: Tensor, *_: object, **__: object) -> tuple[Tensor]:
        return (latents[:, :4],)

    def decode(self, latents: Tensor, **_: object) -> tuple[Tensor]:
        return (latents.new_zeros(1, 3, 1, 1).expand(len(latents), -1, FACE_SIZE, FACE_SIZE),)


def deaf(requests: Sequence[EncodeRequest]) -> list[Tensor]:
    """What an encoder gives that hears nothing: zeros of the shape that `stand_in` takes."""
    layers = _Network.config.encoder_layers + 1
    return [torch.zeros(len(request.rows), layers, TOKEN_WIDTH) for request in requests]


def stand_in() -> Bundle:
    """A bundle of networks on the CPU that make grey faces; `deaf` stands for its audio encoder.

    With `Grey` as the generator they are not even asked.
    """
    network = cast(Any, _Network())
    return Bundle(
        "stand-in", "v15", network, network, network, cast(Any, None), torch.device("cpu"), torch.float32
    )


class Grey(Generator):
    """Makes the same grey face of any latents, without looking at them."""

    def unet(self, tokens: Tensor, latents: Tensor) -> Tensor:  # noqa: ARG002 - nothing is heard
        """The latents, as they are."""
        return latents

    def draw(self, latents: Tensor) -> Tensor:
        """Grey faces, of level 128."""
        return torch.full((1, 1, 1, 1), 1 / 255).expand(len(latents), 3, FACE_SIZE, FACE_SIZE)
