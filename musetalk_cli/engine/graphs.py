"""UNet, VAE and image steps of one batch size as CUDA graphs: hundreds of launches become three.

A graph reads and writes where it was captured: what a batch needs is copied in first, and what comes out is
there until any graph is replayed again. All of it is given to one stream, whose work passes in order, so what
reads the faces has only to be given to the device before the next replay.

Each stage is a graph of its own, so that its time can be told.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch
from torch import Tensor

from musetalk_cli.engine.drawn import CapturedSteps, Drawn
from musetalk_cli.nets.generator import Generator

Made = TypeVar("Made")

_spoilt: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture came to nothing: PyTorch's allocator of pinned memory asks them as long as it runs."""


class Recorder:
    """Captures graphs that share their memory, on one stream aside.

    Args:
        device: A CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._aside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Callable[[], Made]) -> tuple[torch.cuda.CUDAGraph, Made]:
        """A graph of some work, and what it gives: no numbers before the first replay.

        The work is done once before, on the same stream: what libraries set up for a stream they set up then.

        Raises:
            RuntimeError: It cannot be captured.
        """
        self._aside.wait_stream(torch.cuda.current_stream(self._device))
        graph = torch.cuda.CUDAGraph()
        try:
            # around all of it: a capture that fails may not set the stream back
            with torch.cuda.stream(self._aside):
                work()
                made = self._captured(graph, work)
        finally:
            # what the work has read is free for others only behind it
            torch.cuda.current_stream(self._device).wait_stream(self._aside)
        return graph, made

    def _captured(self, graph: torch.cuda.CUDAGraph, work: Callable[[], Made]) -> Made:
        failures: list[Exception] = []
        # what the work left on this stream becomes room for the graph
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        try:
            # not `torch.cuda.graph`: that of older versions of PyTorch looks for garbage before each capture,
            # through all that networks and libraries hold, which takes some tenths of a second
            with _no_garbage_collected():
                # what other threads ask of the device meanwhile, like an upload, spoils no capture
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    return work()
                except Exception as error:
                    failures.append(error)
                    raise
                finally:
                    graph.capture_end()
        except Exception as error:
            self._end(graph)
            # the end of a capture that was spoilt fails too, and says only that something did before
            raise (failures[0] if failures else error) from None

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        """End what a capture that failed may have left open.

        CUDA ends a spoilt capture as it is told to, but PyTorch stops at the error it gets for that: its
        allocator would take memory for the pool, and give none back to the device, as long as it runs.
        """
        _spoilt.append(graph)
        # the second is its name before PyTorch 2.8
        names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")
        end = next((found for name in names if (found := getattr(torch._C, name, None))), None)  # noqa: SLF001
        # it has ended where the failure is not the capture's
        with suppress(RuntimeError):
            if end is not None:
                end(self._device.index or 0, self._pool)
                torch._C._cuda_releasePool(self._device.index or 0, self._pool)  # noqa: SLF001


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Have Python look for no garbage in a block: what it finds may ask something of the device."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


CaptureSteps = Callable[[Recorder, Tensor], CapturedSteps | None]
"""Captures the image steps of pictures, as `ImagePath.capture`."""


class GraphedBatch:
    """The networks and the image steps for batches of one size.

    Args:
        recorder: Captures the graphs.
        generator: UNet and VAE, which made a batch of this size before.
        tokens: `[tokens, width]` of a frame, on the device; other frames' have the same shape and type.
        latents: `[8, 32, 32]` of a frame.
        size: Frames of a batch.
        steps: Captures the image steps.

    Raises:
        RuntimeError: They cannot be captured.
    """

    def __init__(
        self,
        recorder: Recorder,
        generator: Generator,
        tokens: Tensor,
        latents: Tensor,
        size: int,
        steps: CaptureSteps,
    ) -> None:
        self._tokens = tokens.new_zeros(size, *tokens.shape)
        self._latents = latents.new_zeros(size, *latents.shape)
        self._unet, predicted = recorder.capture(lambda: generator.unet(self._tokens, self._latents))
        self._vae, pictures = recorder.capture(lambda: generator.draw(predicted))
        self._drawn = Drawn(pictures, steps(recorder, pictures))

    def unet(self, tokens: Sequence[Tensor], latents: Sequence[Tensor]) -> None:
        """Start the UNet on the frames of a batch, as many as it has."""
        torch.stack(list(tokens), out=self._tokens)
        torch.stack(list(latents), out=self._latents)
        self._unet.replay()

    def draw(self) -> Drawn:
        """Start the VAE on what the UNet gives; its faces are there until any graph is replayed again."""
        self._vae.replay()
        return self._drawn
