"""Batches of faces: padded to few sizes, so that the networks see few shapes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from musetalk_cli.engine.costs import Filling
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.graphs import CaptureSteps, GraphedBatch, Recorder
from musetalk_cli.errors import first_line
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.generator import Generator

log = logging.getLogger(__name__)

CAPTURED_AFTER = 16
"""Batches of a size that are launched singly before its graph is captured where nothing was warmed up.

A capture takes the host about as long as two batches that are launched singly, and waits for those on their
way. A job that has made so many batches of a size has most likely as many before it.
"""


class FaceMaker:
    """Makes faces with the networks, in batches of few sizes.

    Args:
        generator: UNet and VAE.
        stats: Where stage times go.

    Attributes:
        sizes: Sizes a batch may have, ascending.
        filling: How full the batches were.
        halvings: How often the largest size was halved for want of memory: 0 or 1.
    """

    def __init__(self, generator: Generator, stats: StageStats) -> None:
        self.sizes: tuple[int, ...] = ()
        self.filling = Filling()
        self.halvings = 0
        self._generator = generator
        self._stats = stats
        self._most: int | None = None
        self._graphed: dict[int, GraphedBatch] = {}
        self._later: tuple[Recorder, CaptureSteps] | None = None
        self._singly: Counter[int] = Counter()

    @property
    def graphed(self) -> tuple[int, ...]:
        """Sizes for which there are CUDA graphs, ascending."""
        return tuple(sorted(self._graphed))

    def take_sizes(self, sizes: Sequence[int]) -> None:
        """Settle the sizes, those left out that are known to need more memory than there is."""
        most = self._most
        self.sizes = tuple(sizes)
        if most is not None and sizes[-1] > most:
            self.sizes = (*(size for size in sizes if size < most), most)

    def limit(self, most: int) -> None:
        """Make no larger batches from now on; the sizes become fewer, and so many frames are one of them."""
        self._most = most
        self.take_sizes(self.sizes)
        # larger ones hold the memory that lacks
        self._graphed = {size: graphed for size, graphed in self._graphed.items() if size in self.sizes}

    def forget(self) -> None:
        """Let go of the graphs and their memory, and capture none any more."""
        self._later = None
        self._graphed.clear()

    def halve(self, error: torch.OutOfMemoryError) -> None:
        """Make batches of half the size from now on, once.

        Args:
            error: What the device said of a batch that it had no memory for.

        Raises:
            OutOfMemoryError: The largest size was halved before, or is one.
        """
        largest = self.sizes[-1]
        if self.halvings or largest == 1:
            raise error
        self.halvings += 1
        self.limit(-(-largest // 2))
        log.warning(
            "The device has no memory for a batch of %d frames: from now on a batch has at most %d.",
            largest,
            self.sizes[-1],
        )

    def make(self, tokens: Sequence[Tensor], latents: Sequence[Tensor]) -> Drawn:
        """Start to make the faces of a batch, which is padded with its last frame.

        Args:
            tokens: `[tokens, width]` of each frame, on the device.
            latents: `[8, 32, 32]` of each.

        Returns:
            The faces, with the padding. A graph's are overwritten by the next batch: what reads them is to be
            given to the device before.
        """
        count = len(tokens)
        size = next(size for size in self.sizes if size >= count)
        self.filling.batches += 1
        self.filling.frames += count
        self.filling.rows += size
        padded = [*range(count), *[count - 1] * (size - count)]
        told, known = [tokens[number] for number in padded], [latents[number] for number in padded]
        span = self._stats.device_span
        graphed = self._graphed.get(size) or self._capture_in_turn(size, tokens[0], latents[0])
        if graphed is not None:
            with span("unet"):
                graphed.unet(told, known)
            with span("vae"):
                return graphed.draw()
        with span("unet"):
            predicted = self._generator.unet(torch.stack(told), torch.stack(known))
        with span("vae"):
            return Drawn(self._generator.draw(predicted))

    def capture_later(self, recorder: Recorder, steps: CaptureSteps) -> None:
        """Capture the graph of a size after `CAPTURED_AFTER` batches of it, unless `capture` was called.

        Args:
            recorder: Captures them, on a CUDA device.
            steps: Captures the image steps of a batch.
        """
        self._later = recorder, steps

    def _capture_in_turn(self, size: int, tokens: Tensor, latents: Tensor) -> GraphedBatch | None:
        """The graph of a size whose turn it is now; the first that fails is the last that is tried."""
        later = self._later
        if later is None:
            return None
        self._singly[size] += 1
        if self._singly[size] <= CAPTURED_AFTER:
            return None
        self.capture(later[0], tokens, latents, [size], later[1])
        graphed = self._graphed.get(size)
        self._later = None if graphed is None else later
        return graphed

    def capture(
        self,
        recorder: Recorder,
        tokens: Tensor,
        latents: Tensor,
        sizes: Sequence[int],
        steps: CaptureSteps,
    ) -> None:
        """Capture graphs for batches of some sizes, which were made before; where that fails there is none.

        Args:
            recorder: Captures them.
            tokens: `[tokens, width]` of a frame, on a CUDA device.
            latents: `[8, 32, 32]` of it.
            sizes: Which sizes.
            steps: Captures the image steps of a batch.
        """
        self._later = None
        # the largest first: the others find room in its memory
        for size in sorted(sizes, reverse=True):
            try:
                self._graphed[size] = GraphedBatch(recorder, self._generator, tokens, latents, size, steps)
            except RuntimeError as error:
                log.warning(
                    "No CUDA graph for batches of %d frames, whose work is launched singly: %s",
                    size,
                    first_line(error),
                )
                return
