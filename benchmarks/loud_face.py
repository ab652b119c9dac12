"""A face whose light is how loud the sound of its frame is, made in no time: what it shows is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from musetalk_cli.bench.stand_in import TOKEN_WIDTH, Grey
from musetalk_cli.nets.audio_encoder import EncodeRequest
from musetalk_cli.timeline import ROWS_BEFORE, ROWS_PER_FRAME, SAMPLES_PER_ROW
from musetalk_cli.types import FACE_SIZE

LAYERS = 2
ROWS = slice(ROWS_BEFORE, ROWS_BEFORE + 2)
"""Of a frame's rows, those of its own sound, at 25 frames a second."""
SKIN, DARKER = 0.5, 4.0
"""Of -1..1: the light of silence, about that of the demo's skin, and how much darker a level of 1 is."""


def row_levels(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The level of each row's sound; what is no whole row at the end is left out."""
    count = len(samples) // SAMPLES_PER_ROW
    return np.sqrt((samples[: count * SAMPLES_PER_ROW].reshape(count, SAMPLES_PER_ROW) ** 2).mean(axis=1))


def hear_levels(requests: Sequence[EncodeRequest]) -> list[Tensor]:
    """An encoder that gives the level of each row in all of its values."""
    heard = []
    for request in requests:
        levels = np.zeros(request.length, np.float32)
        found = row_levels(request.samples)[: request.length]
        levels[: len(found)] = found
        rows = torch.from_numpy(levels[request.rows.start : request.rows.stop])
        heard.append(rows[:, None, None].expand(-1, LAYERS, TOKEN_WIDTH))
    return heard


class Loud(Grey):
    """Makes faces that are the darker the louder their own sound is."""

    def unet(self, tokens: Tensor, latents: Tensor) -> Tensor:  # noqa: ARG002 - the sound alone counts
        """The level of each frame, `[B]`."""
        rows = tokens.view(len(tokens), ROWS_PER_FRAME, LAYERS, TOKEN_WIDTH)
        return rows[:, ROWS].mean(dim=(1, 2, 3))

    def draw(self, latents: Tensor) -> Tensor:
        """Faces of one light each."""
        light = (SKIN - DARKER * latents).clamp(-1, 1)
        return light[:, None, None, None].expand(-1, 3, FACE_SIZE, FACE_SIZE)
