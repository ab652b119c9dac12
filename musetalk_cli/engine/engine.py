"""Continuous batching: one step serves whoever is due, from all sessions at once.

The engine owns the networks and the order of work; a session owns the state of one stream. Nothing here
starts a thread: whoever calls `step` is the clock of the device.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musetalk_cli.config import JobConfig
from musetalk_cli.engine.compositor import CpuPath, Fetch, ImagePath
from musetalk_cli.engine.costs import Costs, Filling
from musetalk_cli.engine.fused import image_path
from musetalk_cli.engine.hearing import Hearing
from musetalk_cli.engine.hops import HopGrid, HopPlanner
from musetalk_cli.engine.image_steps import ImageSteps, SourceFrame
from musetalk_cli.engine.rehearsal import Rehearsal
from musetalk_cli.engine.repair import Repair
from musetalk_cli.engine.scheduler import Batch, Scheduler
from musetalk_cli.engine.session import Session, SessionOptions
from musetalk_cli.engine.windows import Encode, FeatureStream
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.generator import Generator
from musetalk_cli.timeline import ROWS_PER_SECOND, Timeline, ceil_div
from musetalk_cli.types import FrameRequest, Image, StreamFormat

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.nets.bundle import Bundle

log = logging.getLogger(__name__)

BATCHES_ON_CUDA = (1, 4, 8, 13, 16)
"""Few shapes; 13 frames are the larger chunk of 0.5 s at 25 fps."""
LIVE_BATCHES_ON_CPU = (2, 4, 8)
"""Smaller batches of a live stream, at the start of an utterance; then as large as a file's."""
FLIGHTS_ON_CUDA = 2
"""Batches on their way while the host works: one less than there are pinned slots, so none is overwritten."""


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """A batch on its way to the host.

    Attributes:
        batch: The requests, those for pass-through frames among them.
        made: Those that the networks make, with their source frames.
        fetch: Waits for the patches of these, in their order, and for the marks of `ImagePath.compose`; None
            where there are none.
    """

    batch: Batch
    made: Sequence[tuple[FrameRequest, SourceFrame]]
    fetch: Fetch | None


class Engine:
    """Networks, image steps and the order of work.

    Args:
        bundle: The networks.
        job: Batch sizes, image path and sharpening.
        stats: Where stage times go.
        encode: What gives the rows of windows; None is the bundle's encoder.
        generator: What makes faces; None is that of the bundle.
        images: The image path to begin with; None is what the job and the device say.
        live: Frames are shown as they come: the first of an utterance are made in small batches.

    Attributes:
        costs: What this machine needs, as far as it was measured.
        batch_sizes: Sizes a batch may have, ascending.
        window_rows: Rows of the encoder's window.
        images: What the device holds of avatars, and the image steps.
        repair: What is done about faces that are not numbers.
        filling: How full its batches were.
        most_flights: Batches that may be on their way to the host at once.
    """

    def __init__(
        self,
        bundle: Bundle,
        job: JobConfig,
        stats: StageStats,
        *,
        encode: Encode | None = None,
        generator: Generator | None = None,
        images: ImagePath | None = None,
        live: bool = False,
    ) -> None:
        self.costs = Costs()
        self.filling = Filling()
        self.bundle = bundle
        self.job = job
        self.stats = stats
        self._on_cuda = bundle.device.type == "cuda"
        self._live = live
        self.window_rows = ceil_div((job.window or bundle.card.window_s) * ROWS_PER_SECOND, 1)
        self._encode = encode or AudioEncoder(bundle)
        self._generator = generator or Generator(bundle)
        self.repair = Repair(bundle, self._generator)
        on_device = job.image_ops == "gpu" or (job.image_ops == "auto" and self._on_cuda)
        slots = FLIGHTS_ON_CUDA + 1
        by_job = image_path(bundle.device, slots, job.sharpen) if on_device else CpuPath()
        self.images = ImageSteps(images or by_job, bundle.device, bundle.dtype, job.sharpen, stats)
        self._settle_sizes()
        self.most_flights = FLIGHTS_ON_CUDA if self._on_cuda else 1
        self._flights: deque[_Flight] = deque()

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that are open, in the order they came."""
        return tuple(self._scheduler)

    def take_chunk(self, chunk: Fraction) -> None:
        """Settle the length of a chunk, and with it the batch sizes; before any session is opened."""
        self.job = replace(self.job, chunk=chunk, auto_chunk=False)
        self._settle_sizes()

    def _settle_sizes(self) -> None:
        job = self.job
        # One shape for a file on a CPU, no larger than a chunk: a frame has the same bits in any company.
        whole = min(self.bundle.card.cpu_batch, ceil_div(job.chunk * job.fps, 1))
        smaller = [size for size in LIVE_BATCHES_ON_CPU if self._live and size < whole]
        self.batch_sizes = job.batch_sizes or (BATCHES_ON_CUDA if self._on_cuda else (*smaller, whole))
        self._scheduler = Scheduler(self.batch_sizes, self._batch_seconds)

    def _batch_seconds(self, size: int) -> float:
        """How long a step with a batch of so many may take."""
        return self.costs.hop + self.costs.batch(size)

    def open(
        self,
        avatar: Avatar,
        fps: Fraction,
        hop: Fraction,
        context: Fraction | None,
        sample_rate: int,
        channels: int,
        options: SessionOptions | None = None,
    ) -> Session:
        """Start a session; the device holds its avatar when this returns, so no step has to copy it.

        Safe to call while another thread steps the engine.

        Args:
            avatar: Who speaks.
            fps: Frames per second.
            hop: Seconds of sound per hop, of a live stream at the most.
            context: Seconds of past sound the encoder hears with a hop; None is as much as fits.
            sample_rate: Samples per second of the sound that will come.
            channels: Channels of the sound that will come.
            options: How it treats silence and time; without, every frame is made.
        """
        options = options or SessionOptions()
        stream = StreamFormat(avatar.meta.width, avatar.meta.height, fps, sample_rate, channels)
        timeline = Timeline(fps, self.job.alignment)
        features = FeatureStream(timeline, context, self.window_rows)
        # the first hop of an utterance is as long as its first frame needs
        grid = HopGrid(timeline.wait + 1 / fps if options.live else hop, hop)
        planner = HopPlanner(timeline, options.silence, grid, restarts=options.live)
        hearing = Hearing(timeline, features, planner, sample_rate, channels)
        session = Session(avatar, hearing, timeline, stream, options)
        # in this order: a session that takes part may be stepped at once, and no step is to copy an avatar
        self.images.hold(avatar)
        self._scheduler.add(session)
        return session

    def close(self, session: Session) -> None:
        """Forget a session, and what the device holds of its avatar if no other session shows it."""
        if self._scheduler.remove(session):
            self.images.release(session.avatar)

    @contextmanager
    def _alone(self, session: Session) -> Iterator[None]:
        """What a session fails with is its own: it takes no part any more, and the others go on."""
        try:
            yield
        except Exception as error:
            session.failure = session.failure or error

    @torch.inference_mode()
    def warm_up(self, avatar: Avatar) -> None:
        """Do what a stream will do, so that its first chunk is like the others, and measure what it needs.

        Raises:
            ModelError: The networks make no face of this avatar.
        """
        rehearsal = Rehearsal(
            self.bundle, self._encode, self._generator, self.images, self.repair, self.stats.clock
        )
        self.images.hold(avatar)
        try:
            self.costs = rehearsal.measure(avatar, self.batch_sizes, self.window_rows, live=self._live)
        finally:
            self.images.release(avatar)
        self.stats.clear()

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one round of work: a due hop, and more until a batch is full; one batch; one delivery.

        Returns:
            False where there was nothing to do until more sound comes.

        Raises:
            ModelError: The networks make no face of an avatar, and have made none before.
        """
        # first of all, so that nothing is made of what was interrupted or cannot be in time
        now = self.stats.clock.now()
        for session in self._scheduler:
            with self._alone(session):
                session.settle()
                session.hold_late(now)
        self._scheduler.admit()
        hops: list[tuple[Session, list[EncodeRequest]]] = []
        while (due := self._scheduler.next_hop(to_fill=bool(hops))) is not None:
            with self._alone(due):
                hops.append((due, due.advance(now)))
        self._encode_hops(hops)
        batch = self._scheduler.take_batch()
        if batch:
            self._launch(batch)
        # one batch comes down while the device works on the next, if there is one and nobody waits already
        starved = any(session.is_starved for session in self._scheduler)
        most_flights = 1 if starved else self.most_flights
        landed = bool(self._flights) and (not batch or len(self._flights) >= most_flights)
        if landed:
            self._land(self._flights.popleft())
        self.stats.collect()
        return bool(hops) or bool(batch) or landed

    def _encode_hops(self, hops: Sequence[tuple[Session, Sequence[EncodeRequest]]]) -> None:
        """Encode what sessions ask for, all of them at once."""
        asked = [request for _, requests in hops for request in requests]
        rows: Iterator[Tensor] = iter(())
        if asked:
            with self.stats.device_span("features"):
                rows = iter(self._encode(asked))
        for session, requests in hops:
            heard = [next(rows) for _ in requests]
            with self._alone(session):
                session.understand(heard)

    def _launch(self, batch: Batch) -> None:
        made = [
            (request, SourceFrame(session.avatar, request.source))
            for session, request in batch
            if request.fate.is_made
        ]
        self._flights.append(_Flight(batch, made, self._make(made) if made else None))

    def _make(self, made: Sequence[tuple[FrameRequest, SourceFrame]]) -> Fetch:
        """Start what gives the patches of frames that the networks make."""
        sources = [source for _, source in made]
        tokens = self._pad(torch.stack([request.tokens for request, _ in made if request.tokens is not None]))
        latents = self._pad(self.images.latents(sources))
        self.filling.batches += 1
        self.filling.frames += len(made)
        self.filling.rows += len(tokens)
        with self.stats.device_span("unet"):
            predicted = self._generator.unet(tokens, latents)
        with self.stats.device_span("vae"):
            faces, finite = self._generator.faces(predicted)
        return self.images.run(sources, faces[: len(made)], finite[: len(made)])

    def _pad(self, rows: Tensor) -> Tensor:
        """Repeat the last row up to the next batch size, so that the networks see few shapes."""
        size = next(size for size in self.batch_sizes if size >= len(rows))
        return (
            rows
            if size == len(rows)
            else torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
        )

    def _land(self, flight: _Flight) -> None:
        patches: Iterator[Image | None] = iter(())
        if flight.fetch is not None:
            patches = iter(self.repair.mend(flight.made, flight.fetch(), self.images))
        with self.stats.span("paste"):
            for session, request in flight.batch:
                patch = next(patches) if request.fate.is_made else None
                with self._alone(session):
                    session.assemble(request, patch, self.stats.clock.now())
