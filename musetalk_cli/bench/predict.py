"""What a GPU that is not here would take for a batch, by a model and no measurement."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.counting import HALF, META, count, without_numbers
from musetalk_cli.bench.hardware import DATA_SHEETS, GpuName, TimeModel, kernel_count
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import BATCHES_ON_CUDA
from musetalk_cli.measure.work import Launch, Work
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.generator import Generator
from musetalk_cli.timeline import ROWS_PER_FRAME, ROWS_PER_SECOND, SAMPLE_RATE
from musetalk_cli.types import FACE_SIZE, LATENT_SIZE


@dataclass(frozen=True, slots=True)
class PredictedBatch:
    """One batch size, predicted, in milliseconds for the whole batch.

    Attributes:
        size: Frames in the batch.
        unet_ms: The UNet.
        vae_ms: The VAE's decoder.
        image_ms: All image steps in one launch; the way to host memory is left out.
        kernels: Launched by all of them.
        frames_per_s: Frames a second.
    """

    size: int
    unet_ms: float
    vae_ms: float
    image_ms: float
    kernels: int
    frames_per_s: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a GPU would take.

    Attributes:
        model: The GPU, and what is assumed of it.
        features_ms: One encoder window.
        batches: One entry per batch size.
    """

    model: TimeModel
    features_ms: float
    batches: list[PredictedBatch]

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values, which says of itself what it is."""
        return {
            "note": "predicted by a model from counted work; nothing here was measured",
            "assumed": dataclasses.asdict(self.model),
            "features_ms": self.features_ms,
            "batches": [dataclasses.asdict(batch) for batch in self.batches],
        }


def predict(gpu: GpuName, bundle: Bundle, avatar: Avatar, job: JobConfig, window_rows: int) -> Prediction:
    """Predict what networks, folded and fused as on CUDA, and image steps take, launched one by one.

    All is counted in a format of two bytes.

    Args:
        gpu: On which GPU.
        bundle: The networks, anywhere; they stay as they are.
        avatar: Whose faces are put into frames.
        job: Batch sizes, of which those of CUDA are taken where it names none.
        window_rows: Rows of the encoder's window.
    """
    model = TimeModel(DATA_SHEETS[gpu])
    blank = without_numbers(bundle)
    generator, encode = Generator(blank), AudioEncoder(blank)
    second = EncodeRequest(np.zeros(SAMPLE_RATE, np.float32), range(ROWS_PER_SECOND), window_rows)
    features = count(AudioEncoder.__call__, encode, [second])
    batches = []
    for size in sorted({1, *(job.batch_sizes or BATCHES_ON_CUDA)}):
        tokens = torch.empty(size, ROWS_PER_FRAME * bundle.layers, bundle.token_width, device=META)
        latents = torch.empty(size, 8, LATENT_SIZE, LATENT_SIZE, device=META, dtype=HALF)
        unet = count(Generator.unet, generator, tokens, latents)
        vae = count(Generator.draw, generator, latents[:, :4])
        image = _image_steps(avatar, size)
        unet_s, vae_s, image_s = (model.seconds(work) for work in (unet, vae, image))
        kernels = sum(map(kernel_count, (unet, vae, image)))
        rate = size / (unet_s + vae_s + image_s)
        batches.append(PredictedBatch(size, unet_s * 1e3, vae_s * 1e3, image_s * 1e3, kernels, rate))
    return Prediction(model, model.seconds(features) * 1e3, batches)


def _image_steps(avatar: Avatar, size: int) -> Work:
    """All image steps in one launch, by their bytes: faces, parts and masks are read, parts are written."""
    patches = [patch for patch in avatar.patches if patch is not None]
    pixels = sum(patches[number % len(patches)].mask.size for number in range(size))
    read, written = size * FACE_SIZE * FACE_SIZE * 3 * HALF.itemsize + 4 * pixels, 3 * pixels
    return Work([Launch("compose", 0, read + written, written, 3)])
