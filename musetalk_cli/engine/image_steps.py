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
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.drawn import CapturedSteps, Drawn
from musetalk_cli.engine.host_steps import HostSteps, joined
from musetalk_cli.engine.image_path import Fetch, ImagePath
from musetalk_cli.engine.uploads import Uploads
from musetalk_cli.errors import first_line
from musetalk_cli.measure.stages import StageStats

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.engine.graphs import Recorder

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
        on_host: The device had no memory for these parts: the CPU does the image steps of this avatar.
    """

    latents: Tensor
    targets: dict[str, list[Any]] = field(default_factory=dict)
    on_host: bool = False


class ImageSteps:
    """Resize, sharpen and blend, on the path that was chosen, or the CPU's from where memory lacks for that.

    Args:
        path: The image path to begin with.
        device: Where the networks are.
        dtype: Their number format.
        sharpen: Unsharp mask after the resize, or None.
        stats: Where stage times go.
        most: Frames of a batch at the most.
        slots: Batches that may be on their way to the host at once.

    Attributes:
        fallbacks: How often the path was given up for the CPU's: for one avatar, or once for all.
    """

    def __init__(
        self,
        path: ImagePath,
        device: torch.device,
        dtype: torch.dtype,
        sharpen: Sharpen | None,
        stats: StageStats,
        most: int = 1,
        slots: int = 3,
    ) -> None:
        self.fallbacks = 0
        self._most = most
        self._host = HostSteps(device, sharpen, stats, slots)
        self._path = path
        self._device = device
        self._dtype = dtype
        self._sharpen = sharpen
        self._stats = stats
        self._residents: dict[Avatar, Resident] = {}
        self._holders: Counter[Avatar] = Counter()
        self._lock = threading.Lock()
        self._uploads = Uploads(device)
        # so that of two who hold an avatar at once only the first copies it
        self._uploading = threading.Lock()

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
            with self._uploading:
                self._upload(avatar)
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

    def _upload(self, avatar: Avatar) -> None:
        if avatar in self._residents:
            return
        resident = Resident(self._send(avatar.latents))
        path = self._path
        try:
            targets = path.place(avatar)
            path.reserve([target for target in targets if target is not None], self._most)
            resident.targets[path.name] = targets
        except torch.OutOfMemoryError as error:
            if isinstance(path, CpuPath):
                raise
            self._keep_on_host(resident, avatar, error)
        self._residents[avatar] = resident

    def _keep_on_host(self, resident: Resident, avatar: Avatar, error: RuntimeError) -> None:
        """Leave the image steps of one avatar to the CPU; those of all others stay where they are."""
        resident.on_host = True
        resident.targets[CpuPath.name] = CpuPath().place(avatar)
        self._host.reserve(self._most)
        self.fallbacks += 1
        log.warning(
            "The device has no memory for the pictures of %s, whose image steps are done on the CPU: %s",
            avatar.meta.name,
            first_line(error),
        )

    def _send(self, latents: Tensor) -> Tensor:
        host = latents.to(self._dtype)
        if self._device.type != "cuda":
            return host.to(self._device)
        # as bytes, since numpy knows no bfloat16
        sent = self._uploads.pack([host.contiguous().view(torch.uint8).numpy()])
        return sent[: host.nbytes].view(self._dtype).view(host.shape)

    def latents(self, sources: Sequence[SourceFrame]) -> list[Tensor]:
        """The latents `[8, 32, 32]` of source frames of avatars that are held."""
        return [self._residents[avatar].latents[number] for avatar, number in sources]

    def run(self, sources: Sequence[SourceFrame], drawn: Drawn) -> Fetch:
        """Put faces into source frames; where the device has no memory for that, use the CPU from then on.

        Args:
            sources: Where the faces go, of avatars that are held.
            drawn: The faces, as many or more; not read any more when this returns, but by work of the device.

        Returns:
            What waits for the patches, in their order, and for the marks after them.
        """
        path = self._path
        try:
            return self._launch(path, sources, drawn)
        except torch.OutOfMemoryError as error:
            self._fall_back(path, error)
            return self._launch(self._path, sources, drawn)

    def capture(self, recorder: Recorder, pictures: Tensor) -> CapturedSteps | None:
        """The steps as a graph, as `ImagePath.capture`."""
        return self._path.capture(recorder, pictures)

    def _launch(self, path: ImagePath, sources: Sequence[SourceFrame], drawn: Drawn) -> Fetch:
        apart = [not isinstance(path, CpuPath) and self._residents[avatar].on_host for avatar, _ in sources]
        if any(apart):
            return self._launch_apart(path, sources, drawn.pictures, apart)
        targets = self._targets(path, sources)
        return path.compose(drawn, targets, self._sharpen, self._stats.device_span)

    def _launch_apart(
        self,
        path: ImagePath,
        sources: Sequence[SourceFrame],
        pictures: Tensor,
        apart: Sequence[bool],
    ) -> Fetch:
        """Put some faces into source frames on the path, and on the CPU those of avatars that lie there."""
        parts = []
        for on_host in (False, True):
            numbers = [number for number, one in enumerate(apart) if one is on_host]
            if not numbers:
                continue
            # in the memory layout that they have: a kernel of the path is compiled for it
            some = torch.cat([pictures[number : number + 1] for number in numbers])
            own = [sources[number] for number in numbers]
            if on_host:
                fetch = self._host.compose(some, self._targets(CpuPath(), own))
            else:
                targets = self._targets(path, own)
                fetch = path.compose(Drawn(some), targets, self._sharpen, self._stats.device_span)
            parts.append((numbers, fetch))
        return joined(parts)

    def _targets(self, path: ImagePath, sources: Sequence[SourceFrame]) -> list[Any]:
        found = []
        for avatar, number in sources:
            resident = self._residents[avatar]
            # looked up once: another thread may give the path up meanwhile, and take them away
            targets = resident.targets.get(path.name)
            if targets is None:
                # held before the path was given up: the CPU's targets are views, and nothing is copied
                targets = resident.targets[path.name] = path.place(avatar)
            found.append(targets[number])
        return [target for target in found if target is not None]

    def _fall_back(self, path: ImagePath, error: RuntimeError) -> None:
        """Change to the CPU's image path, for good.

        Raises:
            RuntimeError: The path is the CPU's, for which nothing stands in.
        """
        if isinstance(path, CpuPath):
            raise error
        with self._lock:
            if self._path is not path:
                return
            self._path = CpuPath()
            self.fallbacks += 1
        log.warning(
            "The device has no memory for the image steps, which go on on the CPU: %s", first_line(error)
        )
        for resident in list(self._residents.values()):
            resident.targets.pop(path.name, None)
