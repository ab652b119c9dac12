"""Judges a bundle on voices, sentences and head motion that it never saw, against the renderer's truth.

Everything between sound and face is the product's own code, streaming as `musetalk realtime` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.engine.hops import stream_tokens
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.generator import FaceEncoder, Generator
from musetalk_cli.timeline import ROWS_PER_SECOND, Timeline
from training import faces, sounds, visemes
from training.face import Pose
from training.measures import (
    best_lag,
    closing_frames,
    correlation,
    log_energy,
    mean,
    mouth_psnr,
    quiet_frames,
)
from training.meter import Meter
from training.motion import Moment, judged
from training.people import PEOPLE, Person
from training.speech import SAMPLE_RATE

FRAMES = 300
CHUNK = Fraction(1, 2)
BATCH = 12
CLOSED = 0.05
"""Opening below which lips count as closed."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one clip shows; a figure that the clip has no frames for is None.

    The truth is where the synthesiser says that its phonemes are, so a constant error in those times would
    not show here. Openings that the meter reads outside 0..1 count as 0 or 1.

    Attributes:
        voice, person: Who speaks, and who is drawn.
        opening, width, rounding: Correlation of the generated mouth with the truth.
        loudness: Correlation of the sound's log energy with the true opening: what loudness alone would give.
        lag: Frames by which the mouth fits best later (more than 0) or earlier.
        wide_open: 95 % quantile of the generated opening over the truth's.
        mouth_psnr: Of the generated mouth's surroundings against the truth, dB.
        ceiling_psnr: The same of the truth through the VAE.
        rest_psnr: The same of the face at rest: what doing nothing would give.
        closed: Mean opening in frames in which lips meet for m, b or p.
        met: Share of these frames with an opening below 0.05.
        silent: Mean opening in silence.
        flicker: Mean change from frame to frame of a still face in silence, levels.
        quiet: Frames of silence that the two figures before come from.
        meter: Least correlation of the meter's opening, width and rounding with the truth on true pictures.
    """

    voice: str
    person: str
    opening: float
    width: float
    rounding: float
    loudness: float
    lag: int
    wide_open: float
    mouth_psnr: float
    ceiling_psnr: float
    rest_psnr: float
    closed: float | None
    met: float | None
    silent: float | None
    flicker: float | None
    quiet: int
    meter: float


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """The pictures of one clip, each uint8 `[n, 256, 256, 3]`: truth, truth through the VAE, generated."""

    truth: NDArray[np.uint8]
    again: NDArray[np.uint8]
    generated: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """A bundle as the product uses it.

    Attributes:
        preparing: In fp32, for the latents of faces.
        speaking: In the precision that `--precision auto` takes, for everything else.
    """

    preparing: Bundle
    speaking: Bundle


def tokens_of(bundle: Bundle, samples: NDArray[np.float32], frames: int, chunk: Fraction = CHUNK) -> Tensor:
    """Tokens of a sound's first frames at 25 a second, as a stream in chunks gives them: `[n, 50, 128]`."""
    rows = int(bundle.card.window_s * ROWS_PER_SECOND)
    timeline = Timeline(Fraction(sounds.FRAME_RATE))
    stream = stream_tokens(samples, AudioEncoder(bundle), timeline, chunk, window_rows=rows)
    return torch.stack([tokens.clone() for tokens in islice(stream, frames)])


def speak(bundle: Bundle, latents: Tensor, tokens: Tensor) -> NDArray[np.uint8]:
    """Faces of latents `[n, 8, 32, 32]` and tokens: uint8 `[n, 256, 256, 3]`."""
    generator, found = Generator(bundle), []
    for first in range(0, len(tokens), BATCH):
        part = slice(first, first + BATCH)
        found.append(
            generator.decode(generator.unet(tokens[part], latents[part].to(bundle.device))).cpu().numpy()
        )
    return np.concatenate(found)


def _again(networks: Networks, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    generator, device = Generator(networks.speaking), networks.speaking.device
    latents = _encode(networks.preparing, images)[:, 4:].to(device)
    parts = [latents[first : first + BATCH] for first in range(0, len(latents), BATCH)]
    return np.concatenate([generator.decode(part).cpu().numpy() for part in parts])


def _encode(bundle: Bundle, images: NDArray[np.uint8]) -> Tensor:
    encoder = FaceEncoder(bundle)
    return torch.cat([encoder(images[first : first + BATCH]) for first in range(0, len(images), BATCH)])


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A clip as it is drawn, before anybody speaks it.

    Attributes:
        clip: What is said.
        person: Who is drawn.
        meter: What reads the mouth of that person.
        values: float32 `[n, 5]`, the true mouth of each frame.
        centres: float32 `[n, 2]`, the middle of the closed mouth.
        truth, rest: uint8 `[n, 256, 256, 3]`: with the true mouths, and at rest.
        again: The truth through the VAE.
        latents: Of the faces at rest, `[n, 8, 32, 32]`.
    """

    clip: sounds.Clip
    person: Person
    meter: Meter
    values: NDArray[np.float32]
    centres: NDArray[np.float32]
    truth: NDArray[np.uint8]
    rest: NDArray[np.uint8]
    again: NDArray[np.uint8]
    latents: Tensor


def draw(
    networks: Networks,
    clip: sounds.Clip,
    number: int,
    meters: Sequence[Meter],
    *,
    seed: int = 2,
    frames: int = FRAMES,
) -> Scene:
    """Draw the start of a clip.

    Args:
        networks: What will be judged.
        clip: What is said.
        number: Decides who is drawn, and how the head moves.
        meters: One for each person.
        seed: Of the motion.
        frames: How much of the clip.
    """
    who = number % len(PEOPLE)
    person, values = PEOPLE[who], clip.frames[:frames]
    moments = judged(frames, seed + number)
    centres = np.stack([faces.centre(person, moment) for moment in moments])
    truth = np.stack(
        [faces.crop(person, moment, mouth) for moment, mouth in zip(moments, values, strict=True)]
    )
    rest = np.stack([faces.crop(person, moment, visemes.REST) for moment in moments])
    latents = _encode(networks.preparing, rest)
    return Scene(clip, person, meters[who], values, centres, truth, rest, _again(networks, truth), latents)


def judge(networks: Networks, voice: str, scene: Scene) -> tuple[Figures, Shown]:
    """Speak a clip of a voice and measure the result."""
    tokens = tokens_of(networks.speaking, scene.clip.samples, len(scene.values))
    generated = speak(networks.speaking, scene.latents, tokens)
    figures = measure(networks, voice, scene, generated, tokens)
    return figures, Shown(scene.truth, scene.again, generated)


def measure(
    networks: Networks, voice: str, scene: Scene, generated: NDArray[np.uint8], tokens: Tensor
) -> Figures:
    """The figures of a clip of a voice that was spoken from tokens: uint8 `[n, 256, 256, 3]`."""
    clip, values, centres, latents = scene.clip, scene.values, scene.centres, scene.latents
    frames = len(values)
    found, ideal = (scene.meter.read(images, centres).clip(0, 1) for images in (generated, scene.truth))
    quiet, closing = quiet_frames(values), closing_frames(clip.closures, frames)
    return Figures(
        voice=voice,
        person=scene.person.name,
        opening=correlation(found[:, 0], values[:, 0]),
        width=correlation(found[:, 1], values[:, 1]),
        rounding=correlation(found[:, 2], values[:, 2]),
        loudness=correlation(log_energy(clip.samples, frames), values[:, 0]),
        lag=best_lag(found[:, 0], values[:, 0]),
        wide_open=float(np.quantile(found[:, 0], 0.95) / np.quantile(values[:, 0], 0.95)),
        mouth_psnr=mouth_psnr(generated, scene.truth, centres),
        ceiling_psnr=mouth_psnr(scene.again, scene.truth, centres),
        rest_psnr=mouth_psnr(scene.rest, scene.truth, centres),
        closed=mean(found[closing, 0]),
        met=mean((found[closing, 0] < CLOSED).astype(float)),
        silent=mean(found[quiet, 0]),
        flicker=_flicker(networks.speaking, latents[:1], tokens, quiet),
        quiet=len(quiet),
        meter=min(correlation(ideal[:, k], values[:, k]) for k in range(3)),
    )


def _flicker(bundle: Bundle, latents: Tensor, tokens: Tensor, quiet: NDArray[np.int64]) -> float | None:
    """Mean change of a still face's lower half between neighbouring frames of silences, levels."""
    pairs = quiet[:-1][np.diff(quiet) == 1]
    if not len(pairs):
        return None
    chosen = np.unique(np.concatenate([pairs, pairs + 1]))
    images = speak(bundle, latents.expand(len(chosen), -1, -1, -1), tokens[chosen]).astype(float)[:, 128:]
    first = np.searchsorted(chosen, pairs)
    return float(np.abs(images[first + 1] - images[first]).mean())


def against_energy(
    networks: Networks, path: Path, meter: Meter, person: Person, frames: int = 500
) -> dict[str, float]:
    """How the opening follows the log energy of a real recording: `correlation`, and best `lag` in frames."""
    recorded, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = np.asarray(soxr.resample(recorded.mean(1), rate, SAMPLE_RATE, "HQ"), np.float32)[: frames * 640]
    count = len(samples) // 640
    tokens = tokens_of(networks.speaking, samples, count)
    rest = faces.crop(person, Moment(Pose()), visemes.REST)
    latents = _encode(networks.preparing, rest[None]).expand(count, -1, -1, -1)
    centre = faces.centre(person, Moment(Pose()))
    found = meter.read(speak(networks.speaking, latents, tokens), np.tile(centre, (count, 1)))[:, 0]
    energy = log_energy(samples, count)
    return {"correlation": correlation(found, energy), "lag": best_lag(found, energy)}
