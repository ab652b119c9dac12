"""The stage between sound and picture: tokens and latents to faces, and faces to latents."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musetalk_cli.errors import InputError
from musetalk_cli.nets.device import conv_layout, exact_convolutions
from musetalk_cli.nets.folding import fold
from musetalk_cli.nets.fusion import fuse
from musetalk_cli.ops.drawn import levels
from musetalk_cli.timeline import ROWS_PER_FRAME
from musetalk_cli.types import FACE_SIZE

if TYPE_CHECKING:
    from musetalk_cli.nets.bundle import Bundle, FaceNetwork
    from musetalk_cli.types import Image

FACE_SHAPE = (FACE_SIZE, FACE_SIZE, 3)


def position_table(tokens: int, width: int) -> Tensor:
    """The sinusoidal position table of "Attention is all you need", base 10000.

    Args:
        tokens: Positions, from 0.
        width: Channels; even channels hold the sine, odd ones the cosine of the same angle.

    Returns:
        float32 `[tokens, width]`, in -1..1, on the host.
    """
    position = torch.arange(tokens, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    angle = position * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :width]


class Generator:
    """Makes faces of audio tokens and latents; never waits for the device.

    Args:
        bundle: The networks; used where they are, in the format they have.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._unet, self._vae = fold(bundle.unet), fold(bundle.drawing)
        fuse(self._unet, self._vae)
        self._scale: float = bundle.drawing.config.scaling_factor
        self._tokens = (ROWS_PER_FRAME * bundle.layers, bundle.token_width)
        self._table = position_table(*self._tokens).to(bundle.device)
        self._timestep = torch.zeros((), dtype=torch.int64, device=bundle.device)
        self._layout = conv_layout(bundle.device, bundle.dtype)

    @exact_convolutions
    @torch.inference_mode()
    def unet(self, tokens: Tensor, latents: Tensor) -> Tensor:
        """Latents of the speaking face, in one step.

        Args:
            tokens: `[B, tokens, width]` on the device, before the position table is added.
            latents: `[B, 8, 32, 32]` on the device, scaled, as `FaceEncoder` gives them.

        Returns:
            `[B, 4, 32, 32]` in the bundle's format, on the device.

        Raises:
            InputError: The tokens have another shape, as those of another bundle do.
        """
        if tuple(tokens.shape[1:]) != self._tokens:
            raise InputError(
                f"Tokens of shape {list(tokens.shape)} do not fit model {self._bundle.name}: "
                f"it takes [batch, {self._tokens[0]}, {self._tokens[1]}].",
                "Make them with the same bundle.",
            )
        dtype = self._bundle.dtype
        states = (tokens.float() + self._table).to(dtype)
        sample = latents.to(dtype, memory_format=self._layout)
        result: Tensor = self._unet(sample, self._timestep, encoder_hidden_states=states, return_dict=False)[
            0
        ]
        return result

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Faces of latents.

        Args:
            latents: `[B, 4, 32, 32]` on the device, scaled, as `unet` gives them.

        Returns:
            uint8 `[B, 256, 256, 3]`, BGR, contiguous, on the device.
        """
        return levels(self.draw(latents))

    @exact_convolutions
    @torch.inference_mode()
    def draw(self, latents: Tensor) -> Tensor:
        """What the decoder draws of latents: faces before `ops.drawn.levels` makes pictures of them.

        Args:
            latents: As for `decode`.

        Returns:
            `[B, 3, 256, 256]` in the bundle's format, RGB, in any memory layout.
        """
        sample = (latents / self._scale).to(self._bundle.dtype, memory_format=self._layout)
        drawn: Tensor = self._vae.decode(sample, return_dict=False)[0]
        return drawn

    def exact(self) -> Generator:
        """The same with a copy of the networks in fp32."""
        device, layout = self._bundle.device, conv_layout(self._bundle.device, torch.float32)
        networks = {
            name: copy.deepcopy(network).to(device, torch.float32, memory_format=layout)
            for name in ("unet", "vae", "decoder")
            if (network := getattr(self._bundle, name)) is not None
        }
        return Generator(replace(self._bundle, dtype=torch.float32, **networks))


class FaceEncoder:
    """Makes the latents a face is generated from.

    Args:
        bundle: The networks, or the one that is needed; used where it is, in the format it has.
    """

    def __init__(self, bundle: Bundle | FaceNetwork) -> None:
        self._bundle = bundle
        self._vae = fold(bundle.vae)
        self._scale: float = bundle.vae.config.scaling_factor
        self._layout = conv_layout(bundle.device, bundle.dtype)

    @exact_convolutions
    @torch.inference_mode()
    def __call__(self, faces: Image | Tensor) -> Tensor:
        """Latents of the face without its lower half, and of the whole face.

        The mode of the posterior is taken, so the same face always gives the same latents.

        Args:
            faces: uint8 `[B, 256, 256, 3]`, BGR.

        Returns:
            float32 `[B, 8, 32, 32]` on the host, scaled: the masked face, then the reference.

        Raises:
            InputError: The faces have another shape or type.
        """
        images = torch.as_tensor(faces)
        if images.dtype != torch.uint8 or images.ndim != 4 or tuple(images.shape[1:]) != FACE_SHAPE:
            raise InputError(
                f"Faces are uint8 [batch, 256, 256, 3], not {images.dtype} {list(images.shape)}."
            )
        whole = images.to(self._bundle.device).permute(0, 3, 1, 2).flip(1)
        masked = whole.clone()
        masked[:, :, FACE_SIZE // 2 :] = 0
        pixels = torch.cat((masked, whole)).float() / 127.5 - 1
        sample = pixels.to(self._bundle.dtype).contiguous(memory_format=self._layout)
        posterior = self._vae.encode(sample, return_dict=False)[0]
        latents = posterior.mode().float() * self._scale
        return torch.cat(latents.chunk(2), dim=1).cpu()
