"""What is done about faces that are not numbers: they are made again in fp32, or given up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.image_steps import ImageSteps, SourceFrame
from musetalk_cli.errors import ModelError
from musetalk_cli.nets.generator import Generator
from musetalk_cli.nets.modules import quiet
from musetalk_cli.ops.drawn import are_finite
from musetalk_cli.types import FrameRequest, Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.nets.bundle import Bundle

log = logging.getLogger(__name__)

KEPT_BATCHES = 250
"""Batches without need of them after which the networks in fp32 are forgotten: some ten seconds."""
PROBES = 4
"""Source frames that are tried before the networks, and not one frame's latents, count as broken."""


class Repair:
    """Makes faces again in fp32, where a half format ran over; each of the two endings is said once.

    The networks in fp32 are a copy, twice as large as those in half. It is made when it is needed and kept
    for `KEPT_BATCHES`, since what overflows once does so again.

    Args:
        bundle: The networks.
        generator: Makes faces with them.

    Attributes:
        remade: Faces that were made again, and are right.
        lost: Faces that are no numbers in fp32 either; their source frames are shown.
    """

    def __init__(self, bundle: Bundle, generator: Generator) -> None:
        self.remade = 0
        self.lost = 0
        self._bundle = bundle
        self._generator = generator
        self._exact: Generator | None = None
        self._unused = 0
        self._made = False

    @property
    def holds_copy(self) -> bool:
        """True while the networks in fp32 are in memory."""
        return self._exact is not None

    def forget(self) -> None:
        """Free the memory of the networks in fp32; they are copied again when they are needed."""
        self._exact = None

    def note(self, marks: Image) -> None:
        """Take note of faces that were made: from the first on, one that is none is not the networks' fault.

        Args:
            marks: Those of `ImagePath.compose`.
        """
        self._made = self._made or bool(marks.any())

    def mend(
        self, made: Sequence[tuple[FrameRequest, SourceFrame]], fetched: list[Image], images: ImageSteps
    ) -> list[Image | None]:
        """The patches of a batch, with those made again whose face is not a number; None where it is lost.

        Args:
            made: The frames of the batch.
            fetched: Their patches, and the marks of `ImagePath.compose`.
            images: Makes patches of faces. Where it holds an avatar no more nobody sees its frames, and none
                is made again.

        Raises:
            ModelError: No face was made before, and there is none of the avatar's other frames either.
        """
        patches: list[Image | None] = [*fetched[:-1]]
        marks = fetched[-1]
        self.note(marks)
        self._unused += 1
        if self._unused > KEPT_BATCHES:
            self.forget()
        for number in map(int, np.flatnonzero(marks == 0)):
            request, source = made[number]
            assert request.tokens is not None  # noqa: S101 - only such requests are made
            patches[number] = None
            if not images.holds(source.avatar):
                continue
            face = self._again(request.tokens, *source)
            if face is not None:
                patches[number] = images.run([source], Drawn(face))()[0]
        return patches

    def _again(self, tokens: Tensor, avatar: Avatar, source: int) -> Tensor | None:
        face = self._in_fp32(tokens, avatar, source)
        if face is None:
            self.check(avatar, tokens)
            if not self.lost:
                log.warning(
                    "The face of frame %d of %s is not a number; where that is so the source frame is shown.",
                    source,
                    avatar.meta.name,
                )
            self.lost += 1
            return None
        if not self.remade:
            log.warning(
                "A face is not a number in %s and was made again in fp32; --precision fp32 does so at once.",
                str(self._bundle.dtype).removeprefix("torch."),
            )
        self.remade += 1
        return face

    def check(self, avatar: Avatar, tokens: Tensor) -> None:
        """Refuse networks that make no face of an avatar, whichever of its frames is tried.

        Args:
            avatar: Whose faces are tried.
            tokens: `[tokens, width]`.

        Raises:
            ModelError: They make none, and have made none before.
        """
        numbers = [number for number, patch in enumerate(avatar.patches) if patch is not None]
        name = self._bundle.name
        spread = numbers[:: -(-len(numbers) // PROBES)]
        self._made = self._made or any(self._makes(tokens, avatar, number) for number in spread)
        if not self._made:
            raise ModelError(
                f"Model {name} makes no face of avatar {avatar.meta.name}: what comes out is not a number, "
                "in fp32 as well.",
                "One of them holds numbers that are far too large or too small: fetch the model again, "
                "and prepare the avatar again.",
            )

    def _makes(self, tokens: Tensor, avatar: Avatar, source: int) -> bool:
        latents = avatar.latents[source : source + 1].to(self._bundle.device)
        drawn = self._generator.draw(self._generator.unet(tokens[None], latents))
        return bool(are_finite(drawn).all()) or self._in_fp32(tokens, avatar, source) is not None

    def _in_fp32(self, tokens: Tensor, avatar: Avatar, source: int) -> Tensor | None:
        if self._bundle.dtype == torch.float32:
            return None
        self._unused = 0
        try:
            with quiet():
                self._exact = self._exact or self._generator.exact()
            latents = avatar.latents[source : source + 1].to(self._bundle.device)
            face = self._exact.draw(self._exact.unet(tokens[None], latents))
        except (
            torch.OutOfMemoryError
        ):  # no room for the copy or its work: the face is lost, the stream is not
            self.forget()
            return None
        return face if bool(are_finite(face).all()) else None
