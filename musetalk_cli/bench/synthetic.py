"""An avatar and a sound made of numbers, for measuring only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np
import torch

from musetalk_cli.avatar.data import Avatar, Patch
from musetalk_cli.avatar.description import AvatarMeta
from musetalk_cli.clock import Clock, Pacer
from musetalk_cli.errors import InputError
from musetalk_cli.face.boxes import crop_box
from musetalk_cli.timeline import SAMPLE_RATE
from musetalk_cli.types import AudioBlock, Box, Delivery, Image, Samples

SWAY = 8
"""How far the face moves, and how much its box changes in size, in pixels."""
SPOKEN_S = 10.0
"""Seconds of sound that `microphone` holds; a longer sound says them again."""
BLOCKS_PER_SECOND = 50
"""In which a microphone delivers its sound."""


def synthetic_avatar(width: int, height: int, face: int, frames: int) -> Avatar:
    """An avatar of smooth noise whose face sways and changes its size, with random latents.

    Args:
        width: Columns of every frame.
        height: Rows of every frame.
        face: Rows of the face's box.
        frames: Forward frames.

    Raises:
        InputError: The face does not fit into the frame.
    """
    if not 16 <= face <= min(width, height) - 3 * SWAY:
        raise InputError(
            f"A face of {face} pixels does not fit into a frame of {width}x{height}.",
            "Choose a smaller --face-size.",
        )
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    frame = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    pictures: list[Image] = []
    boxes: list[Box] = []
    patches: list[Patch | None] = []
    for number in range(frames):
        phase = 2 * np.pi * number / frames
        dx, dy = round(SWAY * np.sin(phase)), round(SWAY / 2 * np.cos(phase))
        side_x, side_y = round(face * 0.8) + dx // 2, face + dy
        x, y = (width - side_x) // 2 + dx, (height - side_y) // 2 + dy
        box = Box(x, y, x + side_x, y + side_y)
        pictures.append(np.roll(frame, dx, axis=1))
        boxes.append(box)
        patches.append(Patch.cut(_mask(box), box, crop_box(box), (width, height)))
    meta = AvatarMeta(
        name="synthetic", fps=Fraction(25), width=width, height=height, boxes=tuple(boxes),
        crop_boxes=tuple(crop_box(box) for box in boxes), parameters={}, model={"version": "v15"}, source={},
    )  # fmt: skip
    latents = torch.randn(frames, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    return Avatar(meta, pictures, patches, latents)


def _mask(box: Box) -> Image:
    """An ellipse over the lower half of the face, with a soft border."""
    crop = crop_box(box)
    mask = np.zeros((crop.height, crop.width), np.uint8)
    inner = box.shift(-crop.x1, -crop.y1)
    centre = ((inner.x1 + inner.x2) // 2, (inner.y1 + inner.y2) // 2)
    cv2.ellipse(mask, centre, (inner.width // 2, inner.height // 2), 0, 0, 180, 255, -1)
    soft: Image = cv2.GaussianBlur(mask, (0, 0), max(1.0, crop.width / 60))
    return soft


def synthetic_sound(seconds: float) -> Samples:
    """Noise with the rhythm of syllables, float32 `[n, 1]` at 16 kHz."""
    count = int(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    noise = np.random.default_rng(0).standard_normal(count)
    sound: Samples = (0.1 * noise * np.sin(2 * np.pi * 4 * time) ** 2).astype(np.float32)
    return sound[:, None]


class SyntheticSource:
    """Delivers a sound block by block: each when the one before it is done, or as a microphone does.

    Args:
        sound: float32 `[n, 1]` at 16 kHz.
        size: Samples per block.
        clock: Where time comes from.
        pace: A block arrives when its last sample would have been spoken.
        samples: How many are delivered; a sound that is shorter begins anew. None is the sound once.
    """

    sample_rate = SAMPLE_RATE
    channels = 1
    lost_samples = 0

    def __init__(
        self, sound: Samples, size: int, clock: Clock, *, pace: bool = False, samples: int | None = None
    ) -> None:
        self._sound = sound
        self._samples = len(sound) if samples is None else samples
        self._size = size
        self._clock = clock
        self._closed = threading.Event()
        self.delivery = Delivery.PLAYED if pace else Delivery.RECORDED

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield the blocks in order."""
        pacer = Pacer(self._clock, SAMPLE_RATE, self._clock.now())
        for start in range(0, self._samples, self._size):
            end = min(start + self._size, self._samples)
            block = self._sound.take(range(start, end), axis=0, mode="wrap")
            arrived = (
                pacer.wait_for(end, self._closed) if self.delivery is Delivery.PLAYED else self._clock.now()
            )
            if self._closed.is_set():
                return
            yield AudioBlock(block, arrived)

    def discard(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """End the iteration at its next block."""
        self._closed.set()


def microphone(sound: Samples, seconds: float, clock: Clock) -> SyntheticSource:
    """A sound as a microphone delivers it, block by block at its time.

    Args:
        sound: float32 `[n, 1]` at 16 kHz; begun anew where it is shorter.
        seconds: How long it is spoken.
        clock: Where time comes from.
    """
    size, samples = SAMPLE_RATE // BLOCKS_PER_SECOND, int(seconds * SAMPLE_RATE)
    return SyntheticSource(sound, size, clock, pace=True, samples=samples)
