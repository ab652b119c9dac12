"""What is chosen of a face: whose it is, its box, and which of its pixels are replaced."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from musetalk_cli.errors import InputError

EXTRA_MARGIN = 10
"""Rows that v1.5 adds below the chin."""
CHOICES = "largest, left, right, center or a number from 1, counted from the left"
MaskMode = Literal["jaw", "raw", "neck"]
PARSING_SIZE = 512
"""Side of a label map."""


def check_choice(choice: str) -> str:
    """The choice, where it is one.

    Raises:
        InputError: It is none of `largest`, `left`, `right`, `center` and a number from 1.
    """
    if choice not in {"largest", "left", "right", "center"} and not re.fullmatch(r"[1-9]\d?", choice):
        raise InputError(f"--face {choice} is not understood.", f"Use {CHOICES}.")
    return choice


@dataclass(frozen=True, slots=True)
class MaskShape:
    """What of a face a mask keeps.

    Attributes:
        mode: Which labels: `raw` (v1.0) takes skin and mouth as they are; `neck` adds the neck; `jaw` (v1.5)
            lets the skin grow, narrows it in the cheeks, and leaves the nose out. None is `jaw`.
        cheek_width: Columns of a label map left and right of its middle that `jaw` leaves wide, each 0..256.
        upper_boundary: Share of the crop's height, 0..1, above which nothing is kept.
        feather: Share of the crop's width, 0..0.5, that the blur of the edge reaches over; 0 is no blur.

    Raises:
        InputError: A value is outside its range.
    """

    mode: MaskMode | None = None
    cheek_width: tuple[int, int] = (90, 90)
    upper_boundary: float = 0.5
    feather: float = 0.1

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in get_args(MaskMode):
            raise InputError(f"--parsing-mode {self.mode} is not known.", "Use jaw, raw or neck.")
        if not all(0 <= width <= PARSING_SIZE // 2 for width in self.cheek_width):
            left, right = self.cheek_width
            raise InputError(
                f"--cheek-width {left} {right} is outside 0..{PARSING_SIZE // 2}.",
                f"Its unit is columns of a face {PARSING_SIZE} wide; 90 is a good start.",
            )
        if not 0 <= self.upper_boundary <= 1:
            raise InputError(
                f"--upper-boundary {self.upper_boundary} is outside 0..1.", "0.5 is a good start."
            )
        if not 0 <= self.feather <= 0.5:
            raise InputError(f"--feather {self.feather} is outside 0..0.5.", "0.1 is a good start.")
