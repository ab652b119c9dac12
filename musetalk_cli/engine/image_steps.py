"""What the device holds of avatars, and the image steps that put faces into their frames."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath, Fetch, ImagePath
from musetalk_cli.errors import first_line
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar

log = logging.getLogger(__name__)


class SourceFrame(NamedTuple):
    """One of an avatar's frames.

    Attributes:
        avatar: Whose.
        number: Which, from 0.
    """

    avatar: Avatar
    number: int


@dataclass(slots=True, eq=False)
class Resident:
    """What the device holds of an avatar.

    Attributes:
        latents: `[frames, 8, 32, 32]` in the networks' format.
        targets: The parts that can change, for each image path; None for a frame without a face.
    """

    latents: Tensor
    targets: dict[str, list[Any]] = field(default_factory=dict)


class ImageSteps:
    """Resize, sharpen and blend, on the path that was chosen, and on the CPU's for good where that fails.

    Args:
        path: The image path to begin with.
        device: Where the networks are.
        dtype: Their number format.
        sharpen: Unsharp mask after the resize, or None.
        stats: Where stage times go.

    Attributes:
        fallbacks: How often the path was given up for the CPU's: 0 or 1.
    """

    def __init__(
        self,
        path: ImagePath,
        device: torch.device,
        dtype: torch.dtype,
        sharpen: Sharpen | None,
        stats: StageStats,
    ) -> None:
        self.fallbacks = 0
        self._path = path
        self._device = device
        self._dtype = dtype
        self._sharpen = sharpen
        self._stats = stats
        self._residents: dict[Avatar, Resident] = {}
        self._holders: Counter[Avatar] = Counter()
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        """`gpu` or `cpu`: where the steps run now."""
        return self._path.name

    def holds(self, avatar: Avatar) -> bool:
        """True where the device holds an avatar."""
        return avatar in self._residents

    def hold(self, avatar: Avatar) -> None:
        """Put an avatar on the device, to stay until `release` was called as often; from any thread."""
        with self._lock:
            self._holders[avatar] += 1
        try:
            self.upload(avatar)
        except BaseException:
            self.release(avatar)
            raise

    def release(self, avatar: Avatar) -> None:
        """Let go of what the device holds of an avatar, unless somebody else holds it or is about to."""
        with self._lock:
            self._holders[avatar] -= 1
            if not self._holders[avatar]:
                del self._holders[avatar]
                self._residents.pop(avatar, None)

    def upload(self, avatar: Avatar) -> Resident:
        """What the device holds of an avatar, which is put there where it is not yet."""
        resident = self._residents.get(avatar)
        if resident is None:
            resident = Resident(avatar.latents.to(self._device, self._dtype))
        self._residents[avatar] = resident
        if self._path.name not in resident.targets:
            try:
                resident.targets[self._path.name] = self._path.place(avatar)
            except RuntimeError as error:
                if isinstance(self._path, CpuPath):
                    raise
                self._fall_back(error)
        return resident

    def latents(self, sources: Sequence[SourceFrame]) -> Tensor:
        """The latents `[B, 8, 32, 32]` of source frames."""
        return torch.stack([self.upload(avatar).latents[number] for avatar, number in sources])

    def run(self, sources: Sequence[SourceFrame], faces: Tensor, finite: Tensor) -> Fetch:
        """Put faces into source frames; where the device fails, then or on the way, use the CPU for good.

        Args:
            sources: Where the faces go.
            faces: uint8 `[B, 256, 256, 3]`.
            finite: bool `[B]`, False where a face is not a number.

        Returns:
            What waits for the patches, in their order, and for the marks after them.
        """
        try:
            fetch = self._launch(sources, faces, finite)
        except RuntimeError as error:
            if isinstance(self._path, CpuPath):
                raise
            self._fall_back(error)
            return self._launch(sources, faces, finite)

        def fetch_or_fall_back() -> list[Image]:
            try:
                return fetch()
            except RuntimeError as error:
                # of two batches in the air the other may have fallen back already
                if not isinstance(self._path, CpuPath):
                    self._fall_back(error)
                return self._launch(sources, faces, finite)()

        return fetch_or_fall_back

    def _launch(self, sources: Sequence[SourceFrame], faces: Tensor, finite: Tensor) -> Fetch:
        path, targets = self._targets(sources)
        return path.compose(faces, finite, targets, self._sharpen, self._stats.device_span)

    def _targets(self, sources: Sequence[SourceFrame]) -> tuple[ImagePath, list[Any]]:
        """The path, and its targets: decided once all avatars are placed, since that may change the path."""
        residents = [self.upload(avatar) for avatar, _ in sources]
        path = self._path
        found = [
            resident.targets[path.name][number]
            for resident, (_, number) in zip(residents, sources, strict=True)
        ]
        return path, [target for target in found if target is not None]

    def _fall_back(self, error: RuntimeError) -> None:
        """Change to the CPU's image path, for good; its targets are views, so nothing is copied."""
        log.warning("The image steps failed on %s and go on on the CPU: %s", self._device, first_line(error))
        for resident in self._residents.values():
            resident.targets.pop(self._path.name, None)
        self._path = CpuPath()
        self.fallbacks += 1
        for avatar in list(self._residents):
            self.upload(avatar)
