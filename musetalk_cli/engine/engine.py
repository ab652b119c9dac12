"""Continuous batching: one step serves whoever is due, from all sessions at once.

The engine owns the networks and the order of work; a session owns the state of one stream. Nothing here
starts a thread: whoever calls `step` is the clock of the device.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from musetalk_cli.config import JobConfig
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.costs import BUSY_SHARE, Costs, Filling
from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.failures import failing_alone, telling_device_errors
from musetalk_cli.engine.flights import Flights
from musetalk_cli.engine.fused import image_path
from musetalk_cli.engine.graphs import Recorder
from musetalk_cli.engine.hearing import Hearing
from musetalk_cli.engine.hops import HopGrid, HopPlanner
from musetalk_cli.engine.image_path import ImagePath
from musetalk_cli.engine.image_steps import ImageSteps
from musetalk_cli.engine.rehearsal import Rehearsal
from musetalk_cli.engine.repair import Repair
from musetalk_cli.engine.scheduler import FIRST_FRAMES, FREE_FRAMES, Scheduler
from musetalk_cli.engine.session import Session
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.engine.windows import Encode, FeatureStream
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.device import check_index
from musetalk_cli.nets.generator import Generator
from musetalk_cli.text import PROGRESS
from musetalk_cli.timeline import ROWS_PER_FRAME, ROWS_PER_SECOND, Timeline, ceil_div
from musetalk_cli.types import StreamFormat

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.nets.bundle import Bundle

log = logging.getLogger(__name__)

BATCHES_ON_CUDA = (1, 4, 9, 13, 16)
"""Few shapes; 13 frames are the larger chunk of 0.5 s at 25 fps, and 9 what is left after its first 4."""
FIRST_FRAMES_ON_CUDA = 4
"""Frames of a session that land before the rest of its chunk, where somebody waits for one."""
LIVE_BATCHES_ON_CPU = (2, 4, 8)
"""Smaller batches of a live stream, at the start of an utterance; then as large as a file's."""
FLIGHTS_ON_CUDA = 2
"""Batches on their way while the host works: one less than there are pinned slots, so none is overwritten."""


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

    Raises:
        DeviceError: The networks are on a GPU that is not the first.

    Attributes:
        costs: What this machine needs, as far as it was measured.
        warm_up_s: Seconds that the warm-up took; 0 without one.
        window_rows: Rows of the encoder's window.
        images: What the device holds of avatars, and the image steps.
        repair: What is done about faces that are not numbers.
        faces: What makes faces in batches.
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
        check_index(bundle.device)
        self.costs = Costs()
        self.warm_up_s = 0.0
        self.bundle = bundle
        self.job = job
        self.stats = stats
        self._on_cuda = bundle.device.type == "cuda"
        self._live = live
        self.window_rows = ceil_div((job.window or bundle.card.window_s) * ROWS_PER_SECOND, 1)
        self._encode = encode or AudioEncoder(bundle)
        self._generator = generator or Generator(bundle)
        self.faces = FaceMaker(self._generator, stats)
        self.repair = Repair(bundle, self._generator)
        on_device = job.image_ops == "gpu" or (job.image_ops == "auto" and self._on_cuda)
        slots = FLIGHTS_ON_CUDA + 1
        by_job = image_path(bundle.device, slots, job.sharpen, bundle.dtype) if on_device else CpuPath()
        self._settle_sizes()
        self.images = ImageSteps(
            images or by_job, bundle.device, bundle.dtype, job.sharpen, stats, self.faces.sizes[-1], slots
        )
        if job.graphs and self._on_cuda:
            self.faces.capture_later(Recorder(bundle.device), self.images.capture)
        first = FIRST_FRAMES_ON_CUDA if self._on_cuda else FIRST_FRAMES
        self._scheduler = Scheduler(self.faces.sizes, self._batch_seconds, first)
        self.most_flights = FLIGHTS_ON_CUDA if self._on_cuda else 1
        device = bundle.device if self._on_cuda else None
        self._flights = Flights(self.faces, self.images, self.repair, stats, device)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Sizes a batch may have, ascending."""
        return self.faces.sizes

    @property
    def filling(self) -> Filling:
        """How full its batches were."""
        return self.faces.filling

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Those that are open, in the order they came."""
        return tuple(self._scheduler)

    def take_chunk(self, chunk: Fraction) -> None:
        """Settle the length of a chunk, and with it the batch sizes; before any session is opened."""
        self.job = replace(self.job, chunk=chunk, auto_chunk=False)
        self._settle_sizes()
        self._scheduler.take_sizes(self.faces.sizes)

    def _settle_sizes(self) -> None:
        job = self.job
        # One shape for a file on a CPU, no larger than a chunk: a frame has the same bits in any company.
        whole = min(self.bundle.card.cpu_batch, ceil_div(job.chunk * job.fps, 1))
        smaller = [size for size in LIVE_BATCHES_ON_CPU if self._live and size < whole]
        self.faces.take_sizes(job.batch_sizes or (BATCHES_ON_CUDA if self._on_cuda else (*smaller, whole)))

    @property
    def round_s(self) -> float:
        """Seconds that a step with the largest batch may take beside other work, as far as was measured."""
        return self._batch_seconds(self.faces.sizes[-1]) / BUSY_SHARE

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

        Raises:
            DeviceError: The device has failed, or has no memory for the avatar.
        """
        options = options or SessionOptions()
        stream = StreamFormat(avatar.meta.width, avatar.meta.height, fps, sample_rate, channels)
        timeline = Timeline(fps, self.job.alignment)
        features = FeatureStream(timeline, context, self.window_rows)
        # the first hop of an utterance is as long as its first frame needs
        grid = HopGrid(timeline.wait + 1 / fps if options.live else hop, hop)
        planner = HopPlanner(timeline, options.silence, grid, restarts=options.live)
        hearing = Hearing(timeline, features, planner, sample_rate, channels)
        session = Session(avatar, hearing, timeline, stream, options, FREE_FRAMES * self.batch_sizes[-1])
        # in this order: a session that takes part may be stepped at once, and no step is to copy an avatar
        with telling_device_errors():
            self.images.hold(avatar)
        self._scheduler.add(session)
        return session

    def close(self, session: Session) -> None:
        """Forget a session, and what the device holds of its avatar if no other session shows it."""
        if self._scheduler.remove(session):
            self.images.release(session.avatar)

    def end(self) -> None:
        """Free what the device holds of graphs and copies, before Python finds that nobody needs them."""
        self.faces.forget()
        self.repair.forget()
        if isinstance(self._encode, AudioEncoder):
            self._encode.forget()

    @torch.inference_mode()
    def warm_up(self, avatar: Avatar) -> None:
        """Do what a stream will do, so that its first chunk is like the others, and measure what it needs.

        Batch sizes that the device has no memory for are left out from then on.

        Raises:
            ModelError: The networks make no face of this avatar.
            DeviceError: There is no memory for the smallest batch, or the device has failed.
        """
        clock, sizes, begun = self.stats.clock, self.batch_sizes, self.stats.clock.now()
        if self._on_cuda:
            log.log(PROGRESS, "Warming up with batches of %s frames.", ", ".join(map(str, sizes)))
        rehearsal = Rehearsal(self.bundle, self._encode, self.faces, self.images, self.repair, clock)
        graphs = self.job.graphs and self._on_cuda
        # of a chunk, and of what its first frames need before it and its last ones wait for
        rows = ceil_div(self.job.chunk * ROWS_PER_SECOND, 1) + 2 * ROWS_PER_FRAME
        with telling_device_errors():
            self.images.hold(avatar)
            try:
                self.costs = rehearsal.measure(
                    avatar, sizes, self.window_rows, rows, live=self._live, graphs=graphs
                )
            finally:
                self.images.release(avatar)
        if (most := max(self.costs.batches)) < sizes[-1]:
            self.faces.limit(most)
            self._scheduler.take_sizes(self.faces.sizes)
            log.warning(
                "The device has no memory for a batch of %d frames: a batch has at most %d.", sizes[-1], most
            )
        self.stats.clear()
        self.faces.filling = Filling()
        self.warm_up_s = clock.now() - begun
        if self._on_cuda:
            log.log(PROGRESS, "Warmed up in %.1f s.", self.warm_up_s)

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one round of work: a due hop, and more until a batch is full; one batch; one delivery.

        Returns:
            False where there was nothing to do until more sound comes.

        Raises:
            ModelError: The networks make no face of an avatar, and have made none before.
            DeviceError: The device has failed, or its memory does not suffice.
        """
        with telling_device_errors():
            return self._step()

    def _step(self) -> bool:
        landed = self._flights.land_passed()
        # before anything is made, so that nothing is made of what was interrupted or cannot be in time
        now = self.stats.clock.now()
        for session in self._scheduler:
            with failing_alone(session):
                session.settle()
                session.hold_late(now)
        self._scheduler.admit()
        hops: list[tuple[Session, list[EncodeRequest]]] = []
        while (due := self._scheduler.next_hop(to_fill=bool(hops))) is not None:
            with failing_alone(due):
                hops.append((due, due.advance(now)))
        self._encode_hops(hops)
        if batch := self._scheduler.take_batch():
            self._flights.start(batch)
            self._scheduler.take_sizes(self.faces.sizes)
        landed += self._flights.land_passed()
        # the oldest comes down while the device works on the next, if there is one
        if self._flights.under_way >= (self.most_flights if batch else 1):
            self._flights.land()
            landed += 1
        self.stats.collect()
        return bool(hops) or bool(batch) or landed > 0

    def _encode_hops(self, hops: Sequence[tuple[Session, Sequence[EncodeRequest]]]) -> None:
        """Encode what sessions ask for, all of them at once."""
        asked = [request for _, requests in hops for request in requests]
        rows: Iterator[Tensor] = iter(())
        if asked:
            with self.stats.device_span("features"):
                rows = iter(self._encode(asked))
        for session, requests in hops:
            heard = [next(rows) for _ in requests]
            with failing_alone(session):
                session.understand(heard)
