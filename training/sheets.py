"""Contact sheets: truth above, the truth through the VAE, and what was generated from sound."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.evaluate import Shown

COLUMNS = 8
STEP = 11
"""Frames from one column to the next; no multiple of a beat of speech."""
FIRST = 30


def write(path: Path, shown: Shown) -> None:
    """Write a sheet of every eleventh frame, whole and at full size."""
    numbers = [min(FIRST + STEP * column, len(shown.truth) - 1) for column in range(COLUMNS)]
    rows = [
        np.hstack([images[number] for number in numbers])
        for images in (shown.truth, shown.again, shown.generated)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.vstack(rows))
