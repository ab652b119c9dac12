"""Batches on their way from the device to the host: started, and landed in the order they were started."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.failures import failing_alone
from musetalk_cli.engine.image_path import Fetch
from musetalk_cli.engine.image_steps import ImageSteps, SourceFrame
from musetalk_cli.engine.repair import Repair
from musetalk_cli.engine.scheduler import Batch
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import FrameRequest, Image


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """A batch on its way to the host.

    Attributes:
        batch: The requests, those for pass-through frames among them.
        made: Those that the networks make, with their source frames.
        fetch: Waits for the patches of these, in their order, and for the marks after them; None where there
            are none, or nobody wants them here.
        passed: Recorded after all of its work; None where the device does everything at once.
    """

    batch: Batch
    made: Sequence[tuple[FrameRequest, SourceFrame]]
    fetch: Fetch | None
    passed: torch.cuda.Event | None


class Flights:
    """Makes batches: their faces, and with them the frames of their sessions.

    Args:
        faces: What makes faces in batches.
        images: What puts them into frames.
        repair: What is done about those that are not numbers.
        stats: Where stage times go.
        device: A CUDA device, or None.
    """

    def __init__(
        self,
        faces: FaceMaker,
        images: ImageSteps,
        repair: Repair,
        stats: StageStats,
        device: torch.device | None,
    ) -> None:
        self._device = device
        self._faces = faces
        self._images = images
        self._repair = repair
        self._stats = stats
        self._flights: deque[_Flight] = deque()

    @property
    def under_way(self) -> int:
        """How many are on their way."""
        return len(self._flights)

    def start(self, batch: Batch) -> None:
        """Start a batch; where the device has no memory for it, land what is on its way and do it in two.

        Raises:
            OutOfMemoryError: There is none for half of it either, or the size was halved before.
        """
        try:
            self._flights.append(self._start(batch))
        except torch.OutOfMemoryError as error:
            self._faces.halve(error)
        else:
            return
        # only here is free what the failed batch had taken; what is on its way has some too
        while self._flights:
            self.land()
        self._repair.forget()
        torch.cuda.empty_cache()
        for part in _in_two(batch):
            self._flights.append(self._start(part))

    def _start(self, batch: Batch) -> _Flight:
        made = [
            (request, SourceFrame(session.avatar, request.source))
            for session, request in batch
            if request.fate.is_made
        ]
        if not made or all(request.elsewhere for _, request in batch):
            return _Flight(batch, made, None, None)
        sources = [source for _, source in made]
        tokens = [request.tokens for request, _ in made if request.tokens is not None]
        drawn = self._faces.make(tokens, self._images.latents(sources))
        fetch = self._images.run(sources, drawn)
        passed = None
        if self._device is not None:
            passed = torch.cuda.Event()  # type: ignore[no-untyped-call]
            passed.record(torch.cuda.current_stream(self._device))
        return _Flight(batch, made, fetch, passed)

    def land_passed(self) -> int:
        """Land those that the device has passed, without waiting for it; how many these were.

        The oldest goes first, so frames keep their order.
        """
        landed = 0
        while self._flights and self._has_passed(self._flights[0]):
            self.land()
            landed += 1
        return landed

    @staticmethod
    def _has_passed(flight: _Flight) -> bool:
        if flight.passed is None:
            return flight.fetch is None
        return bool(flight.passed.query())  # type: ignore[no-untyped-call]

    def land(self) -> None:
        """Wait for the oldest, and make the frames of its sessions; there must be one.

        Raises:
            ModelError: The networks make no face of an avatar, and have made none before.
        """
        flight = self._flights.popleft()
        patches: Iterator[Image | None] = iter(())
        if flight.fetch is not None:
            patches = iter(self._repair.mend(flight.made, flight.fetch(), self._images))
        with self._stats.span("paste"):
            for session, request in flight.batch:
                patch = next(patches, None) if request.fate.is_made else None
                with failing_alone(session):
                    session.assemble(request, patch, self._stats.clock.now())


def _in_two(batch: Batch) -> list[Batch]:
    """A batch in two parts in which as many frames are made, or one more in the first."""
    made = [number for number, (_, request) in enumerate(batch) if request.fate.is_made]
    middle = made[(len(made) - 1) // 2] + 1
    return [part for part in (batch[:middle], batch[middle:]) if part]
