"""The names and formats in an avatar's folder."""

from __future__ import annotations

from typing import Literal

META_FILE = "avatar.json"
FRAMES_DIR, MASKS_DIR, IDLE_DIR = "full_imgs", "masks", "idle"
"""Forward frames, the masks of those with a face, and the frames of the idle clip."""
LatentsFormat = Literal["fp32", "fp16"]
"""The number format of the latents' file; in memory they are float32 always."""


def image_name(number: int) -> str:
    """Name of the file that holds frame `number`."""
    return f"{number:08d}.png"
