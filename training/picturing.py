"""Second stage: the VAE learns to draw the people again from latents."""

from __future__ import annotations

import time

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

from training import nets
from training.faces import Faces, to_tensor_array
from training.schedule import Schedule, report

LEARNING_RATE = 2e-3
CROPS_UNTIL = 0.6
"""Share of the steps that see crops and halves of pictures instead of whole ones."""
SMALL, WHOLE = 128, 256
SMALL_BATCH, WHOLE_BATCH = 16, 5
MASKED = 0.15
"""Share of the pictures without their lower half; the encoder must stand them, the decoder hardly."""
JUDGED = 24
"""Moments at the end of the set that are only looked at."""
MOUTH = (60, 46)
"""Half width and half height of the mouth's surroundings in pixels of the face."""


def pixel_weights(centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much each pixel of a face counts, `[256, 256]`: what is pasted more, and the mouth most."""
    weights = np.ones((WHOLE, WHOLE), np.float32)
    weights[:104] = 0.4
    x, y = centre.astype(int)
    weights[y - MOUTH[1] : y + MOUTH[1], x - MOUTH[0] : x + MOUTH[0]] = 3.0
    return weights


def _example(
    faces: Faces, rng: np.random.Generator, mode: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    number, which = int(rng.integers(len(faces.images) - JUDGED)), int(rng.integers(4))
    image = np.asarray(faces.images[number, which])
    weights = pixel_weights(faces.centres[number])
    if rng.random() < MASKED:
        image = image.copy()
        image[WHOLE // 2 :] = 0
        weights = np.full_like(weights, 0.2)
    if mode == "half":
        return cv2.resize(image, (SMALL, SMALL), interpolation=cv2.INTER_AREA), weights[::2, ::2]
    if mode == "crop":
        x, y = faces.centres[number] - SMALL / 2 + rng.normal(0, 18, 2)
        if rng.random() < 0.3:
            x, y = rng.uniform(0, WHOLE - SMALL, 2)
        column, row = (int(np.clip(value, 0, WHOLE - SMALL)) for value in (x, y))
        part = (slice(row, row + SMALL), slice(column, column + SMALL))
        return image[part], weights[part]
    return image, weights


def edge_error(one: Tensor, other: Tensor) -> Tensor:
    """Mean difference of the steps between neighbouring pixels."""
    return sum(
        ((one.diff(dim=axis) - other.diff(dim=axis)).abs().mean() for axis in (2, 3)), torch.zeros(()).to(one)
    )


def psnr(error: Tensor) -> float:
    """Of a squared error of pictures in -1..1, dB."""
    return float(-10 * torch.log10(error.mean() / 4))


def mouth_parts(images: Tensor, centres: NDArray[np.float32]) -> Tensor:
    """The mouth's surroundings of each picture: `[n, 3, 92, 120]`."""
    places = centres.astype(int)
    return torch.stack(
        [
            one[:, y - MOUTH[1] : y + MOUTH[1], x - MOUTH[0] : x + MOUTH[0]]
            for one, (x, y) in zip(images, places, strict=True)
        ]
    )


@torch.no_grad()
def ceiling(vae: AutoencoderKL, faces: Faces, device: torch.device) -> tuple[float, float]:
    """PSNR of pictures that were never trained on: of the whole, and of the mouth."""
    vae.eval()
    images = torch.from_numpy(to_tensor_array(faces.images[-JUDGED:, 1])).to(device)
    again = vae.decode(vae.encode(images).latent_dist.mode()).sample
    centres = np.asarray(faces.centres[-JUDGED:])
    vae.train()
    mouths = mouth_parts(images, centres) - mouth_parts(again, centres)
    return psnr((images - again).pow(2)), psnr(mouths.pow(2))


def train(faces: Faces, steps: int, seed: int, device: torch.device) -> AutoencoderKL:
    """Train a VAE.

    Returns:
        It, with the scaling factor that gives its latents of faces a spread of 1.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = nets.build_vae().to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    schedule = Schedule(optimiser, LEARNING_RATE, steps, warm_up=50)
    started = time.monotonic()
    for step in range(steps):
        small = schedule.progress < CROPS_UNTIL
        mode = ("half" if step % 4 == 0 else "crop") if small else "whole"
        batch = [_example(faces, rng, mode) for _ in range(SMALL_BATCH if small else WHOLE_BATCH)]
        images = torch.from_numpy(to_tensor_array([image for image, _ in batch])).to(device)
        weights = torch.from_numpy(np.stack([weight for _, weight in batch])).to(device)[:, None]
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            again = vae.decode(posterior.sample()).sample
        error = images - again.float()
        loss = (error.abs() * weights).mean() + 0.5 * edge_error(images, again.float())
        loss = loss + nn.functional.avg_pool2d(error, 8).abs().mean() + 1e-7 * posterior.kl().float().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        schedule.step()
        if step % 250 == 249 or step == steps - 1:
            whole, mouth = ceiling(vae, faces, device)
            report("picturing", step + 1, steps, started, loss=loss.item(), whole=whole, mouth=mouth)
    vae.register_to_config(scaling_factor=spread_of(vae, faces, device))
    return vae.eval()


@torch.no_grad()
def spread_of(vae: AutoencoderKL, faces: Faces, device: torch.device) -> float:
    """The factor that gives the latents of faces a standard deviation of 1."""
    vae.eval()
    images = torch.from_numpy(to_tensor_array(faces.images[:48, 0])).to(device)
    return round(1 / float(vae.encode(images).latent_dist.mode().std()), 5)
