"""A clip to prepare from: the embedded person before a plain wall, back and forth."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from musetalk_cli.avatar.pictures import read_frame
from musetalk_cli.avatar.store import load_meta
from musetalk_cli.errors import AvatarError, InputError
from musetalk_cli.face.haar import HaarFinder
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.nets.embedded import DEMO, embedded_avatars
from musetalk_cli.timeline import SAMPLE_RATE, mirrored
from musetalk_cli.types import Image, StreamFormat

FPS = Fraction(25)
WALL = 128
"""Level of the wall, in all three colours."""


def write_clip(path: Path, frames: int, size: tuple[int, int]) -> None:
    """Write an H.264 video, 25 frames a second, in every frame of which OpenCV's cascade finds the face.

    Args:
        path: File to write.
        frames: How many; the person's frames come forward and backward.
        size: Columns and rows of every frame, even numbers.

    Raises:
        AvatarError: The embedded avatar was not installed, or is broken.
        InputError: The face is too small in frames of this size to be found.
        MuseTalkError: The video cannot be written.
    """
    picture, count = _person(size)
    finder = HaarFinder()
    encoder = VideoEncoder(path, StreamFormat(*size, FPS, SAMPLE_RATE, 1))
    silence = np.zeros((int(SAMPLE_RATE / FPS), 1), np.float32)
    try:
        for number in range(frames):
            frame = picture(mirrored(number, count))
            if number < count and not finder.find([frame], [])[0]:
                what = f"The face is not found in frames of {size[0]}x{size[1]}."
                raise InputError(what, "Choose a larger --frame-size.")
            encoder.write(frame, silence)
        encoder.finish()
    except BaseException:
        encoder.abort()
        raise


def _person(size: tuple[int, int]) -> tuple[Callable[[int], Image], int]:
    """The frames of the embedded avatar on a canvas, by their number, and how many there are."""
    home = embedded_avatars()
    if home is None:
        raise AvatarError("The embedded avatar was not installed.", "Install the package with its data.")
    folder, meta = home / DEMO, load_meta(home, DEMO)
    width, height = size
    scale = min(width / meta.width, height / meta.height)
    inner = (max(1, round(meta.width * scale)), max(1, round(meta.height * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2

    def picture(number: int) -> Image:
        canvas = np.full((height, width, 3), WALL, np.uint8)
        person = cv2.resize(read_frame(folder, meta, number), inner, interpolation=cv2.INTER_AREA)
        canvas[top : top + inner[1], left : left + inner[0]] = person
        return canvas

    return picture, meta.frames
