"""The names in an avatar's folder."""

from __future__ import annotations

META_FILE = "avatar.json"
FRAMES_DIR, MASKS_DIR, IDLE_DIR = "full_imgs", "masks", "idle"
"""Forward frames, the masks of those with a face, and the frames of the idle clip."""


def image_name(number: int) -> str:
    """Name of the file that holds frame `number`."""
    return f"{number:08d}.png"
