"""Third stage: the UNet learns to give a face at rest the mouth that the sound asks for.

First between latents; then through the decoder, which is trained along, between pictures.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn

from musetalk_cli.nets.generator import position_table
from training import nets, sounds
from training.faces import Faces, to_tensor_array
from training.listening import Heard, Listener, log_mel
from training.picturing import JUDGED, edge_error, mouth_parts, pixel_weights
from training.schedule import Schedule, report

LEARNING_RATE = 1.2e-3
LATENTS_UNTIL = 0.7
"""Share of the steps that compare latents only."""
LATENT_BATCH, PICTURE_BATCH = 24, 8
ROWS_BEFORE, ROWS_OF_FRAME = 4, 10
"""Rows of 20 ms before a frame that it hears, and all of them, at 25 frames a second."""


@torch.no_grad()
def hidden_rows(listener: Listener, heard: Heard, device: torch.device) -> Tensor:
    """All hidden states of all clips, with the silence around them: float16 `[n, 1516, 5, 128]`."""
    mel, found = log_mel(device), []
    for samples in heard.samples:
        states = listener.encoder(mel([samples.astype(np.float32)]), output_hidden_states=True).hidden_states
        found.append(torch.stack(states, dim=2)[0].half().cpu())
    rows = torch.stack(found)
    before, after = (
        rows.new_zeros(len(rows), ROWS_BEFORE, *rows.shape[2:]),
        rows.new_zeros(len(rows), 12, *rows.shape[2:]),
    )
    return torch.cat([before, rows, after], dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """The latents of a training set, scaled.

    Attributes:
        shown: float32 `[n, 4, 4, 32, 32]` of every picture.
        masked: float32 `[n, 4, 32, 32]` of the picture at rest without its lower half.
    """

    shown: Tensor
    masked: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, vae: AutoencoderKL, faces: Faces, device: torch.device) -> Latents:
        """Encode a training set."""
        shown, masked, scale = [], [], vae.config.scaling_factor
        for pictures in faces.images:
            images = torch.from_numpy(to_tensor_array(pictures))
            upper = images[:1].clone()
            upper[:, :, 128:] = -1
            modes = vae.encode(torch.cat([images, upper]).to(device)).latent_dist.mode().cpu() * scale
            shown.append(modes[:-1])
            masked.append(modes[-1])
        return cls(torch.stack(shown), torch.stack(masked))


class Course:
    """Batches of what the UNet is asked and should answer.

    Args:
        faces: The pictures.
        latents: Theirs.
        rows: Hidden states of the clips, as `hidden_rows` gives them.
        device: Where to put batches.
    """

    def __init__(self, faces: Faces, latents: Latents, rows: Tensor, device: torch.device) -> None:
        self._faces, self._latents, self._rows, self._device = faces, latents, rows, device
        self._table = position_table(ROWS_OF_FRAME * rows.shape[2], rows.shape[3])
        squares = np.stack(
            [pixel_weights(centre).reshape(32, 8, 32, 8).mean((1, 3)) for centre in faces.centres]
        )
        self._weights = torch.from_numpy(squares * np.where(squares > 1, 1.7, 1).astype(np.float32))

    def tokens(self, numbers: NDArray[np.int64]) -> Tensor:
        """Tokens of frames numbered through all clips: float32 `[B, 50, 128]`."""
        clips, frames = numbers // sounds.FRAMES, numbers % sounds.FRAMES
        windows = [
            self._rows[clip, 2 * frame : 2 * frame + ROWS_OF_FRAME]
            for clip, frame in zip(clips, frames, strict=True)
        ]
        return torch.stack(windows).float().flatten(1, 2) + self._table

    def question(self, moments: NDArray[np.int64], which: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """What the UNet gets for picture `which` (1..3) of some moments: latents and tokens."""
        latents = torch.cat([self._latents.masked[moments], self._latents.shown[moments, 0]], dim=1)
        numbers = self._faces.heard[moments, which - 1]
        return latents.to(self._device), self.tokens(numbers).to(self._device)

    def answer(self, moments: NDArray[np.int64], which: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The latents it should give, and how much each counts."""
        return self._latents.shown[moments, which].to(self._device), self._weights[moments][:, None].to(
            self._device
        )

    def pictures(
        self, moments: NDArray[np.int64], which: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, NDArray[np.float32]]:
        """The pictures it should give, how much each pixel counts, and where the mouths are."""
        centres = self._faces.centres[moments]
        images = to_tensor_array(
            np.stack([self._faces.images[n, k] for n, k in zip(moments, which, strict=True)])
        )
        weights = np.stack([pixel_weights(centre) for centre in centres])[:, None]
        return torch.from_numpy(images).to(self._device), torch.from_numpy(weights).to(self._device), centres


def train(
    faces: Faces,
    heard: Heard,
    listener: Listener,
    vae: AutoencoderKL,
    steps: int,
    seed: int,
    device: torch.device,
) -> UNet2DConditionModel:
    """Train a UNet, and the VAE's decoder a little further.

    Args:
        faces: The pictures.
        heard: The clips whose mouths they show.
        listener: The trained encoder; stays as it is.
        vae: The trained VAE; its encoder stays as it is.
        steps: How many batches.
        seed: Decides weights and order.
        device: Where to compute.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    listener.eval().requires_grad_(False)
    vae.eval().requires_grad_(False)
    course = Course(faces, Latents.of(vae, faces, device), hidden_rows(listener, heard, device), device)
    decoder = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in decoder:
        parameter.requires_grad_(True)
    unet = nets.build_unet().to(device).train()
    optimiser = torch.optim.AdamW([*unet.parameters(), *decoder], betas=(0.9, 0.99), weight_decay=0.01)
    schedule = Schedule(optimiser, LEARNING_RATE, steps, warm_up=60)
    started, still = time.monotonic(), torch.tensor(0, device=device)
    for step in range(steps):
        drawn = schedule.progress >= LATENTS_UNTIL
        size = PICTURE_BATCH if drawn else LATENT_BATCH
        moments, which = rng.integers(0, len(faces.images) - JUDGED, size), rng.integers(1, 4, size)
        latents, tokens = course.question(moments, which)
        with torch.autocast(device.type, torch.bfloat16):
            given = unet(latents, still, encoder_hidden_states=tokens).sample.float()
        wanted, weights = course.answer(moments, which)
        loss = ((given - wanted).abs() * weights).mean()
        if drawn:
            images, pixels, centres = course.pictures(moments, which)
            with torch.autocast(device.type, torch.bfloat16):
                again = vae.decode(given / vae.config.scaling_factor).sample
            error = (again.float() - images).abs()
            mouths = mouth_parts(error, centres).mean()
            loss = 0.2 * loss + 2 * (error * pixels).mean() + 3 * mouths + edge_error(again.float(), images)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        schedule.step()
        if step % 200 == 199 or step == steps - 1:
            right, wrong = _judge(unet, course, len(faces.images), still)
            report("speaking", step + 1, steps, started, loss=loss.item(), error=right, other_sound=wrong)
    return unet.eval()


@torch.no_grad()
def _judge(unet: UNet2DConditionModel, course: Course, count: int, still: Tensor) -> tuple[float, float]:
    """Weighted latent error on moments never trained on, with their sound and with another's."""
    unet.eval()
    moments, which = np.arange(count - JUDGED, count), np.ones(JUDGED, np.int64)
    latents, tokens = course.question(moments, which)
    wanted, weights = course.answer(moments, which)
    errors = [
        float(((unet(latents, still, encoder_hidden_states=sound).sample - wanted).abs() * weights).mean())
        for sound in (tokens, tokens.roll(1, 0))
    ]
    unet.train()
    return errors[0], errors[1]
