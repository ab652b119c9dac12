"""First stage: the audio encoder learns to tell the mouth from the sound.

A linear head reads five mouth values from the last hidden state of every row; it is thrown away afterwards,
and the UNet reads all hidden states.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from musetalk_cli.nets import modules
from musetalk_cli.nets.audio_encoder import LogMel
from training import nets, sounds, visemes
from training.schedule import Schedule, report

BATCH = 2
LEARNING_RATE = 1.5e-3
VALUE_WEIGHTS = (2.0, 1.0, 1.0, 0.6, 0.6)
EDGE_ROWS = 3
"""Rows around a cut in the sound that are not judged."""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Clips as the encoder takes them.

    Attributes:
        samples: float16 `[n, 480000]`.
        rows: float32 `[n, 1500, 5]`.
        frames: float32 `[n, 750, 5]`.
    """

    samples: NDArray[np.float16]
    rows: NDArray[np.float32]
    frames: NDArray[np.float32]

    @classmethod
    def of(cls, clips: list[sounds.Clip]) -> Heard:
        """Stack clips."""
        return cls(
            np.stack([clip.samples.astype(np.float16) for clip in clips]),
            np.stack([clip.rows for clip in clips]),
            np.stack([clip.frames for clip in clips]),
        )

    def save(self, path: Path) -> None:
        """Write them to a file that `load` reads."""
        with path.open("wb") as file:
            np.savez(file, samples=self.samples, rows=self.rows, frames=self.frames)

    @classmethod
    def load(cls, path: Path) -> Heard:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as data:
            return cls(data["samples"], data["rows"], data["frames"])


def log_mel(device: torch.device) -> LogMel:
    """The spectrogram the product computes."""
    return LogMel(modules.build_feature_extractor(nets.extractor_config(), Path(__file__)), device)


class Listener(nn.Module):
    """The encoder and the head it is trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nets.build_encoder()
        self.head = nn.Linear(nets.WIDTH, 5)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel `[B, 80, 3000]` to mouth values `[B, 1500, 5]`."""
        values: Tensor = self.head(self.encoder(mel).last_hidden_state)
        return values


def _example(
    heard: Heard, number: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """A clip turned round by a random number of rows, sometimes cut short: sound, mouth, what counts."""
    turn = int(rng.integers(sounds.ROWS))
    samples = np.roll(heard.samples[number].astype(np.float32), turn * 320)
    rows = np.roll(heard.rows[number], turn, axis=0)
    counts = np.ones(sounds.ROWS, np.float32)
    counts[max(0, turn - EDGE_ROWS) : turn + EDGE_ROWS] = 0
    if rng.random() < 0.5:
        cut = int(rng.integers(50, sounds.ROWS))
        samples[cut * 320 :] = 0
        rows[cut:] = visemes.REST
        counts[cut - 1 : cut + 10] = 0
    return samples * np.float32(10 ** rng.uniform(-0.7, 0.3)), rows, counts


def _masked(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Bands of bins set to the mean, after SpecAugment."""
    for one in mel:
        for _ in range(2):
            first = int(rng.integers(0, 72))
            one[first : first + int(rng.integers(0, 10))] = one.mean()
    return mel


def correlations(listener: Listener, clips: list[sounds.Clip], mel: LogMel) -> NDArray[np.float64]:
    """How well the head's values follow the truth, for each clip and value: `[clips, 5]`."""
    listener.eval()
    found = []
    with torch.inference_mode():
        for clip in clips:
            heard = listener(mel([clip.samples]))[0].float().cpu().numpy()
            found.append([np.corrcoef(heard[:, k], clip.rows[:, k])[0, 1] for k in range(5)])
    listener.train()
    return np.array(found)


def train(heard: Heard, judged: list[sounds.Clip], steps: int, seed: int, device: torch.device) -> Listener:
    """Train an encoder and its head.

    Args:
        heard: The training set.
        judged: Clips of other voices, only looked at.
        steps: How many batches.
        seed: Decides weights and order.
        device: Where to compute.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    listener, mel = Listener().to(device).train(), log_mel(device)
    optimiser = torch.optim.AdamW(listener.parameters(), weight_decay=0.02, betas=(0.9, 0.98))
    schedule = Schedule(optimiser, LEARNING_RATE, steps, warm_up=60)
    weights = torch.tensor(VALUE_WEIGHTS, device=device)
    started = time.monotonic()
    for step in range(steps):
        batch = [_example(heard, int(n), rng) for n in rng.integers(0, len(heard.samples), BATCH)]
        spectra = _masked(mel([samples for samples, _, _ in batch]), rng)
        truth, counts = (
            torch.from_numpy(np.stack(part)).to(device) for part in list(zip(*batch, strict=True))[1:]
        )
        with torch.autocast(device.type, torch.bfloat16):
            values = listener(spectra)
        error = (values.float() - truth) * counts[..., None]
        loss = (error.abs() * weights).mean() + (error.diff(dim=1).abs() * weights).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(listener.parameters(), 1.0)
        schedule.step()
        if step % 200 == 199 or step == steps - 1:
            opening = correlations(listener, judged, mel).mean(0).round(3)
            report("listening", step + 1, steps, started, loss=loss.item(), correlations=opening.tolist())
    return listener.eval()
