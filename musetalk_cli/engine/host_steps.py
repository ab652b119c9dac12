"""Image steps on the CPU for some faces of a batch, beside those that the device does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.image_path import Fetch, Target
from musetalk_cli.engine.pinned import PinnedSlots
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.ops.drawn import are_finite, levels
from musetalk_cli.types import FACE_SIZE, Image

FACE_BYTES = FACE_SIZE * FACE_SIZE * 3


class HostSteps:
    """The CPU's image path for faces that are made on a device, without a wait before they are fetched.

    Args:
        device: Where the faces are.
        sharpen: Unsharp mask of the resized faces, or None.
        stats: Where stage times go.
        slots: Batches that may be on their way to the host at once.
    """

    def __init__(self, device: torch.device, sharpen: Sharpen | None, stats: StageStats, slots: int) -> None:
        self._path = CpuPath()
        self._sharpen = sharpen
        self._stats = stats
        self._pinned = PinnedSlots(slots) if device.type == "cuda" else None

    def reserve(self, faces: int) -> None:
        """Make room for batches of so many faces."""
        if self._pinned is not None:
            self._pinned.reserve(faces * (FACE_BYTES + 1))

    def compose(self, pictures: Tensor, targets: Sequence[Target]) -> Fetch:
        """As `ImagePath.compose`; what is fetched is composed then.

        Args:
            pictures: As `Drawn` has them, as many as there are targets.
            targets: Where they go.
        """
        faces, finite = levels(pictures), are_finite(pictures)
        if self._pinned is None:
            return self._compose(faces, finite, targets)
        count = len(faces)
        fetch = self._pinned.send(torch.cat([faces.flatten(), finite.to(torch.uint8)]))

        def fetch_all() -> list[Image]:
            fetched = torch.from_numpy(fetch())
            pixels, marks = fetched[: count * FACE_BYTES], fetched[count * FACE_BYTES :]
            return self._compose(pixels.view(count, FACE_SIZE, FACE_SIZE, 3), marks, targets)()

        return fetch_all

    def _compose(self, faces: Tensor, finite: Tensor, targets: Sequence[Target]) -> Fetch:
        return self._path.compose_faces(lambda: (faces, finite), targets, self._sharpen, self._stats.span)


def joined(parts: Sequence[tuple[Sequence[int], Fetch]]) -> Fetch:
    """What waits for a batch that was composed in parts.

    Args:
        parts: For each the numbers of its faces in the batch, and what waits for it.
    """

    def fetch() -> list[Image]:
        found: dict[int, tuple[Image, int]] = {}
        for numbers, fetch_part in parts:
            *patches, marks = fetch_part()
            found.update(zip(numbers, zip(patches, marks, strict=True), strict=True))
        whole = [found[number] for number in sorted(found)]
        return [*(patch for patch, _ in whole), np.array([mark for _, mark in whole], np.uint8)]

    return fetch
