"""How faces get into their frames, as the engine sees it: what a path is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.drawn import CapturedSteps, Drawn
from musetalk_cli.types import Box, Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.engine.graphs import Recorder

Picture = Any
"""A tensor on the device's path, an array on the CPU's."""
Fetch = Callable[[], list[Image]]
"""Waits for patches on their way to the host; uint8 `[height, width, 3]` each."""
Span = Callable[[str], AbstractContextManager[None]]
"""Times what is done in its block, under a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where one face goes.

    Attributes:
        body: uint8 `[height, width, 3]`, the part of the source frame that can change.
        mask: uint8 `[height, width]`, 0..255, how much of the face replaces the body.
        face: The face's box, relative to the part.
        store: uint8 `[n]` on the device, of which body and mask are views; None on the host.
        body_at: Where the body begins in it, in bytes; without gaps, as the mask.
        mask_at: Where the mask begins.
        tables: Keeps the index tables of the avatar's sizes on the device.
    """

    body: Picture
    mask: Picture
    face: Box
    store: Tensor | None = None
    body_at: int = 0
    mask_at: int = 0
    tables: Sequence[object] = ()


class ImagePath(Protocol):
    """How faces get into their frames."""

    name: str

    def place(self, avatar: Avatar) -> list[Any]:
        """Put an avatar's parts and masks where `compose` needs them, one target per source frame.

        A pass-through frame has none: None.
        """

    def reserve(self, targets: Sequence[Any], faces: int) -> None:
        """Make room for batches of so many faces on these targets, so that no batch has to.

        Safe to call while another thread composes; not from two at once.
        """

    def compose(self, drawn: Drawn, targets: Sequence[Any], sharpen: Sharpen | None, span: Span) -> Fetch:
        """Put faces into their parts, and start the way to host memory; each step in a span of its own.

        Args:
            drawn: The faces, as many as there are targets or more.
            targets: Where they go.
            sharpen: Unsharp mask of the resized faces, or None.
            span: Times the steps.

        Returns:
            What waits for the patches, in the order of the targets, and after them for the marks, uint8
            `[targets]`: 0 where a value of the face is not finite, so that its patch means nothing.
        """

    def capture(self, recorder: Recorder, pictures: Tensor) -> CapturedSteps | None:
        """The steps as a graph, for faces that another graph leaves in one place; None where there is none.

        Args:
            recorder: Captures it.
            pictures: The faces, as `Drawn` has them.

        Raises:
            RuntimeError: It cannot be captured.
        """
