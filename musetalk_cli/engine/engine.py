"""Sessions and continuous batching: one step serves whoever is due, from all sessions at once.

The engine owns the networks and the order of work; a session owns the state of one stream. Nothing here
starts a thread: whoever calls `step` is the clock of the device.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.config import JobConfig
from musetalk_cli.engine.compositor import CpuPath, Fetch, GpuPath, ImagePath, Target
from musetalk_cli.engine.scheduler import Batch, Scheduler
from musetalk_cli.engine.session import Manners, Session
from musetalk_cli.engine.windows import FeatureStream
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.audio_encoder import AudioEncoder
from musetalk_cli.nets.generator import Generator
from musetalk_cli.repair import Place, Repair
from musetalk_cli.timeline import ROWS_PER_FRAME, SAMPLE_RATE, Timeline, ceil_div
from musetalk_cli.types import Frame, FrameRequest, Image, Samples, StreamFormat

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.nets.bundle import Bundle

log = logging.getLogger(__name__)

BATCHES_ON_CUDA = (1, 4, 8, 13, 16)
"""Few shapes; 13 frames are the larger chunk of 0.5 s at 25 fps."""
FLIGHTS_ON_CUDA = 2
"""Batches on their way while the host works: one less than there are pinned slots, so none is overwritten."""


@dataclass(slots=True, eq=False)
class _Resident:
    """What the device holds of an avatar: latents, and the parts that can change for each image path."""

    latents: Tensor
    targets: dict[str, list[Target | None]]


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """A batch on its way to the host.

    Attributes:
        batch: The requests, those for pass-through frames among them.
        animated: Those that have a face, with their places.
        fetch: Waits for the patches of these, in their order, and for the marks of `ImagePath.marks`.
    """

    batch: Batch
    animated: Sequence[tuple[FrameRequest, Place]]
    fetch: Fetch


class Engine:
    """Networks, image steps and the order of work.

    Args:
        bundle: The networks.
        job: Batch sizes, image path and sharpening.
        stats: Where stage times go.

    Attributes:
        batch_sizes: Sizes a batch may have, ascending.
        fallbacks: How often the device's image path was given up for the CPU's: 0 or 1.
        repair: What is done about faces that are not numbers.
    """

    def __init__(self, bundle: Bundle, job: JobConfig, stats: StageStats) -> None:
        self.bundle = bundle
        self.job = job
        self.stats = stats
        self.fallbacks = 0
        self._on_cuda = bundle.device.type == "cuda"
        # One shape on a CPU, no larger than a chunk: a frame then has the same bits in whatever company.
        whole = min(bundle.card.cpu_batch, ceil_div(job.chunk * job.fps, 1))
        self.batch_sizes = job.batch_sizes or (BATCHES_ON_CUDA if self._on_cuda else (whole,))
        self._encode = AudioEncoder(bundle)
        self._generator = Generator(bundle)
        self.repair = Repair(bundle, self._generator)
        on_device = job.image_ops == "gpu" or (job.image_ops == "auto" and self._on_cuda)
        slots = FLIGHTS_ON_CUDA + 1
        self._images: ImagePath = GpuPath(bundle.device, slots, job.sharpen) if on_device else CpuPath()
        self._residents: dict[Avatar, _Resident] = {}
        self._scheduler = Scheduler(self.batch_sizes[-1])
        self._flights: deque[_Flight] = deque()

    @property
    def image_path(self) -> str:
        """`gpu` or `cpu`: where resize, sharpen and blend run now."""
        return self._images.name

    def open(
        self,
        avatar: Avatar,
        fps: Fraction,
        hop: Fraction,
        context: Fraction | None,
        sample_rate: int,
        channels: int,
        manners: Manners | None = None,
    ) -> Session:
        """Start a stream.

        Args:
            avatar: Who speaks.
            fps: Frames per second.
            hop: Seconds of sound per hop.
            context: Seconds of past sound the encoder hears with a hop; None is as much as fits.
            sample_rate: Samples per second of the sound that will come.
            channels: Channels of the sound that will come.
            manners: How it behaves in silence and under load; without, every frame is made.
        """
        stream = StreamFormat(avatar.meta.width, avatar.meta.height, fps, sample_rate, channels)
        timeline = Timeline(fps, self.job.alignment)
        features = FeatureStream(self._timed_encode, timeline, hop, context)
        session = Session(avatar, features, timeline, stream, manners or Manners())
        self._scheduler.sessions.append(session)
        return session

    def close(self, session: Session) -> None:
        """Forget a stream, and what the device holds of its avatar if no other stream shows it."""
        self._scheduler.sessions.remove(session)
        if all(other.avatar is not session.avatar for other in self._scheduler.sessions):
            self._residents.pop(session.avatar, None)

    @torch.inference_mode()
    def warm_up(self, avatar: Avatar) -> None:
        """Do once what a stream will do, for every batch size, so that its first chunk is like the others.

        Without CUDA one batch of the smallest size is enough: what a shape costs once is little there.

        Raises:
            ModelError: The networks make no face of this avatar.
        """
        self._encode(np.zeros(SAMPLE_RATE, np.float32))
        source = next(number for number, patch in enumerate(avatar.patches) if patch is not None)
        latents = self._resident(avatar).latents[source : source + 1]
        tokens = latents.new_zeros(1, ROWS_PER_FRAME * self.bundle.layers, self.bundle.token_width)
        for size in self.batch_sizes if self._on_cuda else self.batch_sizes[:1]:
            predicted = self._generator.unet(tokens.expand(size, -1, -1), latents.expand(size, -1, -1, -1))
            *_, marks = self._composite([(avatar, source)] * size, *self._generator.faces(predicted))()
            if not marks.all():
                self.repair.check(avatar, tokens[0])
        self.stats.clear()

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one round of work: a due hop, and more until a batch is full; one batch; one delivery.

        Raises:
            ModelError: The networks make no face of an avatar, and have made none before.

        Returns:
            False where there was nothing to do until more sound comes.
        """
        now = self.stats.clock.now()
        for session in self._scheduler.sessions:
            session.settle()
            session.drop_late(now)
        self._scheduler.admit()
        encoded = False
        while (due := self._scheduler.next_hop(to_fill=encoded)) is not None:
            due.advance(now)
            encoded = True
        batch = self._scheduler.take_batch()
        if batch:
            self._launch(batch)
        landed = bool(self._flights) and (not batch or len(self._flights) >= self._most_flights)
        if landed:
            self._land(self._flights.popleft())
        self.stats.collect()
        return encoded or bool(batch) or landed

    def _timed_encode(self, samples: Samples) -> Tensor:
        with self.stats.device_span("features"):
            return self._encode(samples)

    @property
    def _most_flights(self) -> int:
        return FLIGHTS_ON_CUDA if self._on_cuda else 1

    def _launch(self, batch: Batch) -> None:
        animated = [
            (request, (session.avatar, request.source))
            for session, request in batch
            if request.tokens is not None and session.avatar.patches[request.source] is not None
        ]
        self._flights.append(_Flight(batch, animated, self._animate(animated) if animated else list))

    def _animate(self, animated: Sequence[tuple[FrameRequest, Place]]) -> Fetch:
        """Start what gives the patches of source frames that have a face."""
        places = [place for _, place in animated]
        tokens = torch.stack([request.tokens for request, _ in animated if request.tokens is not None])
        latents = torch.stack([self._resident(avatar).latents[source] for avatar, source in places])
        with self.stats.device_span("unet"):
            predicted = self._generator.unet(self._pad(tokens), self._pad(latents))
        with self.stats.device_span("vae"):
            faces, finite = self._generator.faces(predicted)
        return self._composite(places, faces[: len(animated)], finite[: len(animated)])

    def _pad(self, rows: Tensor) -> Tensor:
        """Repeat the last row up to the next batch size, so that the networks see few shapes."""
        size = next(size for size in self.batch_sizes if size >= len(rows))
        return (
            rows
            if size == len(rows)
            else torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
        )

    def _resident(self, avatar: Avatar) -> _Resident:
        resident = self._residents.get(avatar)
        if resident is None:
            resident = _Resident(avatar.latents.to(self.bundle.device, self.bundle.dtype), {})
            self._residents[avatar] = resident
        return resident

    def _targets(self, places: Sequence[Place]) -> list[Target]:
        targets = []
        for avatar, source in places:
            resident = self._resident(avatar)
            if self._images.name not in resident.targets:
                resident.targets[self._images.name] = self._images.place(avatar)
            if (target := resident.targets[self._images.name][source]) is not None:
                targets.append(target)
        return targets

    def _composite(self, places: Sequence[Place], faces: Tensor, finite: Tensor) -> Fetch:
        """Run the image steps; where the device fails them, then or on the way, use the CPU for good."""
        try:
            fetch = self._run_images(places, faces, finite)
        except RuntimeError as error:
            if isinstance(self._images, CpuPath):
                raise
            self._fall_back(error)
            return self._run_images(places, faces, finite)

        def fetch_or_fall_back() -> list[Image]:
            try:
                return fetch()
            except RuntimeError as error:
                if not isinstance(self._images, CpuPath):
                    self._fall_back(error)
                return self._run_images(places, faces, finite)()

        return fetch_or_fall_back

    def _run_images(self, places: Sequence[Place], faces: Tensor, finite: Tensor) -> Fetch:
        path, span = self._images, self.stats.device_span
        targets = self._targets(places)
        with span("resize"):
            resized = path.resize(faces, targets)
        if self.job.sharpen is not None:
            with span("sharpen"):
                resized = path.sharpen(resized, self.job.sharpen)
        with span("blend"):
            patches = path.blend(resized, targets)
        with span("download"):
            return path.download([*patches, path.marks(finite)])

    def _fall_back(self, error: RuntimeError) -> None:
        """Change to the CPU's image path, for good."""
        log.warning(
            "The image steps failed on %s and go on on the CPU: %s", self.bundle.device, _first_line(error)
        )
        for resident in self._residents.values():
            resident.targets.pop(self._images.name, None)
        self._images = CpuPath()
        self.fallbacks += 1

    def _land(self, flight: _Flight) -> None:
        patches: Iterator[Image | None] = iter(())
        if flight.animated:
            patches = iter(self.repair.mend(flight.animated, flight.fetch(), self._composite))
        with self.stats.span("paste"):
            for session, request in flight.batch:
                image, shown, idle = session.picture(request, patches)
                pts = session.timeline.pts(request.index)
                session.deliver(Frame(request, image, pts, self.stats.clock.now(), shown, idle))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
