"""Lossless videos made by the tests, so that every frame is known to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def film(path: Path, frames: Iterable[np.ndarray], fps: float = 25) -> Path:
    """Write uint8 `[height, width, 3]` BGR frames as raw video; returns the path."""
    raw = {"pix_fmt_in": "bgr24", "pix_fmt_out": "bgr24", "codec": "rawvideo", "macro_block_size": 1}
    writer = None
    for frame in frames:
        if writer is None:
            size = (frame.shape[1], frame.shape[0])
            writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, **raw)
            writer.send(None)
        writer.send(np.ascontiguousarray(frame).tobytes())
    writer.close()
    return path
