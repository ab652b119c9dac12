"""What flows from room to room, and the two ends it flows between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[np.uint8]
Samples = NDArray[np.float32]


class Box(NamedTuple):
    """A rectangle in pixels of a frame: left and top inside, right and bottom outside."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        """Rows."""
        return self.y2 - self.y1

    @property
    def empty(self) -> bool:
        """True where the rectangle holds no pixel."""
        return self.width <= 0 or self.height <= 0

    def clamp(self, width: int, height: int) -> Box:
        """The part of the box inside a frame of `width` x `height` pixels."""
        return self.intersect(Box(0, 0, width, height))

    def intersect(self, other: Box) -> Box:
        """The part both boxes share; empty where they share none."""
        return Box(
            max(self.x1, other.x1), max(self.y1, other.y1), min(self.x2, other.x2), min(self.y2, other.y2)
        )

    def shift(self, dx: int, dy: int) -> Box:
        """The box moved by `dx` columns and `dy` rows."""
        return Box(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index an image that holds the whole box."""
        return slice(self.y1, self.y2), slice(self.x1, self.x2)


@dataclass(frozen=True, slots=True, eq=False)
class AudioChunk:
    """A piece of sound as it arrived.

    Attributes:
        samples: float32 `[samples, channels]`, full scale at 1.0, at the rate of its source.
        arrived: Monotonic seconds at which the piece was complete.
    """

    samples: Samples
    arrived: float


@dataclass(frozen=True, slots=True, eq=False)
class FrameRequest:
    """One frame whose sound is known and whose picture is not.

    Attributes:
        index: Number of the frame in its session, from 0.
        tokens: `[10 * layers, width]`, the audio tokens before the position table is added.
        audio: float32 `[samples, channels]`, the frame's own slice of the sound at the source's rate.
        arrived: Monotonic seconds at which the first sample of the slice arrived.
        ready: Monotonic seconds at which the chunk that made the frame computable was complete.
        hop: Number of that chunk.
    """

    index: int
    tokens: Tensor
    audio: Samples
    arrived: float
    ready: float
    hop: int


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A finished frame and the sound that belongs to it.

    Attributes:
        request: What the frame was made for.
        image: uint8 `[height, width, 3]`, BGR.
        pts: Seconds from the start of the stream, exactly.
        composited: Monotonic seconds at which the picture lay finished in host memory.
    """

    request: FrameRequest
    image: Image
    pts: Fraction
    composited: float


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What a sink must know before the first frame.

    Attributes:
        width: Columns of every frame.
        height: Rows of every frame.
        fps: Frames per second, exactly.
        sample_rate: Samples per second of the frames' sound.
        channels: Channels of the frames' sound.
    """

    width: int
    height: int
    fps: Fraction
    sample_rate: int
    channels: int


class Source(Protocol):
    """Where sound comes from.

    Attributes:
        sample_rate: Samples per second of every piece.
        channels: Channels of every piece.
        live: True where the pieces come at their own time, so that waiting for them is not work.
    """

    sample_rate: int
    channels: int
    live: bool

    def __iter__(self) -> Iterator[AudioChunk]:
        """Yield the pieces in order until the sound ends."""

    def close(self) -> None:
        """Stop: a blocked or later iteration ends; safe to call twice and from another thread."""


class Sink(Protocol):
    """Where frames go."""

    def open(self, stream: StreamFormat) -> None:
        """Prepare for frames of one format; called once, before the first frame."""

    def write(self, frame: Frame) -> None:
        """Take the next frame; may wait while the sink is full."""

    def finish(self) -> None:
        """Complete the result and put it in its final place."""

    def abort(self) -> None:
        """Drop what was written so far, leaving nothing behind; safe to call at any time."""
