"""What an engine does before its first stream: everything once, timed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from musetalk_cli.clock import Clock
from musetalk_cli.engine.costs import Costs
from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.graphs import Recorder
from musetalk_cli.engine.image_steps import ImageSteps, SourceFrame
from musetalk_cli.engine.repair import Repair
from musetalk_cli.engine.windows import Encode
from musetalk_cli.errors import first_line
from musetalk_cli.nets.audio_encoder import WINDOWS_ON_CUDA, AudioEncoder, EncodeRequest
from musetalk_cli.nets.device import measured_convolutions, wait_for
from musetalk_cli.timeline import ROWS_PER_FRAME, SAMPLE_RATE

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.nets.bundle import Bundle

log = logging.getLogger(__name__)

TRIALS, TRYING_S = 5, 1.0
"""How often work of a live stream is timed as an engine warms up, at the most, and how long it is tried."""


class Rehearsal:
    """Does what a stream will do with one avatar, and measures what it needs.

    Args:
        bundle: The networks.
        encode: What gives the rows of windows.
        faces: What makes faces in batches.
        images: What the device holds of avatars, and the image steps.
        repair: What is done about faces that are not numbers.
        clock: Where time comes from.
    """

    def __init__(
        self,
        bundle: Bundle,
        encode: Encode,
        faces: FaceMaker,
        images: ImageSteps,
        repair: Repair,
        clock: Clock,
    ) -> None:
        self._bundle = bundle
        self._encode = encode
        self._faces = faces
        self._images = images
        self._repair = repair
        self._clock = clock
        self._on_cuda = bundle.device.type == "cuda"

    def measure(
        self, avatar: Avatar, sizes: Sequence[int], window_rows: int, rows: int, *, live: bool, graphs: bool
    ) -> Costs:
        """Make every batch size on CUDA, the first and the last elsewhere: a new shape costs little there.

        On CUDA sizes that the device has no memory for are left out. The thread is the one that will make
        frames: what cuDNN measures it remembers for the thread alone.

        Args:
            avatar: Whose faces are made.
            sizes: Sizes a batch may have, ascending.
            window_rows: Rows of the encoder's window.
            rows: How many of them a hop needs, at the most.
            live: Each is timed several times, and the shortest counts.
            graphs: Capture CUDA graphs of the sizes and of the windows; on CUDA alone.

        Raises:
            ModelError: The networks make no face of this avatar.
            OutOfMemoryError: The device has no memory for the smallest size.
        """
        second = np.zeros(SAMPLE_RATE, np.float32)
        request = EncodeRequest(second, range(min(rows, window_rows)), window_rows)
        # as many windows at once as sessions may ask for together: each number is a shape of its own
        numbers = range(1, WINDOWS_ON_CUDA + 1 if live and self._on_cuda else 2)
        with measured_convolutions():
            for windows in numbers:
                self._encode([request] * windows)
            sizes = self._fitting(avatar, sizes if self._on_cuda else sorted({sizes[0], sizes[-1]}))
            if graphs:
                _, tokens, latents = self._frame(avatar)
                recorder = Recorder(self._bundle.device)
                self._faces.capture(recorder, tokens, latents, sizes, self._images.capture)
        if graphs:
            self._capture_windows(recorder, request, numbers)
        trials = TRIALS if live else 1
        hop = self._shortest(lambda: self._encode([request]), trials)
        return Costs(hop, {size: self._shortest(partial(self._make, avatar, size), trials) for size in sizes})

    def _capture_windows(self, recorder: Recorder, request: EncodeRequest, numbers: Sequence[int]) -> None:
        """Capture graphs for windows that come together; where that fails there is none, which is said."""
        if not isinstance(self._encode, AudioEncoder):
            return
        try:
            for windows in reversed(numbers):  # the largest first, as with batches
                self._encode.capture(recorder.capture, request, windows)
        except RuntimeError as error:
            log.warning(
                "No CUDA graph for %d windows of sound together, whose work is launched singly: %s",
                windows,
                first_line(error),
            )

    def _fitting(self, avatar: Avatar, sizes: Sequence[int]) -> Sequence[int]:
        """Those sizes that the device has memory for, each made once on CUDA; elsewhere the first is made."""
        for number, size in enumerate(sizes if self._on_cuda else sizes[:1]):
            try:
                self._make(avatar, size)
            except torch.OutOfMemoryError:
                if not number:
                    raise
            else:
                continue
            torch.cuda.empty_cache()
            return sizes[:number]
        return sizes

    def _frame(self, avatar: Avatar) -> tuple[SourceFrame, Tensor, Tensor]:
        """A frame of an avatar with a face, and its tokens and latents on the device."""
        number = next(number for number, patch in enumerate(avatar.patches) if patch is not None)
        source = SourceFrame(avatar, number)
        [latents] = self._images.latents([source])
        # as the encoder gives them, in fp32
        tokens = torch.zeros(
            ROWS_PER_FRAME * self._bundle.layers, self._bundle.token_width, device=latents.device
        )
        return source, tokens, latents

    def _make(self, avatar: Avatar, size: int) -> None:
        """Make a batch of one frame of an avatar, so many times."""
        source, tokens, latents = self._frame(avatar)
        drawn = self._faces.make([tokens] * size, [latents] * size)
        *_, marks = self._images.run([source] * size, drawn)()
        self._repair.note(marks)
        if not marks.all():
            self._repair.check(avatar, tokens)

    def _shortest(self, work: Callable[[], object], trials: int) -> float:
        """Seconds that some work takes: whatever else the machine does, it does not always."""
        seconds: list[float] = []
        while len(seconds) < trials and sum(seconds) < TRYING_S:
            seconds.append(self._seconds(work))
        return min(seconds)

    def _seconds(self, work: Callable[[], object]) -> float:
        begun = self._clock.now()
        work()
        wait_for(self._bundle.device)
        return self._clock.now() - begun
