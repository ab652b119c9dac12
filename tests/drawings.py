"""Faces as a decoder draws them, of which pictures come that are known."""

import torch


def drawn(faces, broken=(), dtype=torch.float32):
    """Of what exactly these pictures come, uint8 `[B, 256, 256, 3]`, BGR.

    Args:
        faces: The pictures.
        broken: Which faces are no numbers.
        dtype: In which format.
    """
    made = (faces.permute(0, 3, 1, 2).flip(1) / 127.5 - 1).to(dtype)
    made[list(broken), 1, 200, 100] = float("nan")
    return made
