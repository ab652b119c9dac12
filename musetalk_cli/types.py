"""What flows from room to room, and the two ends it flows between."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Image = NDArray[np.uint8]
Samples = NDArray[np.float32]

FACE_SIZE, LATENT_SIZE = 256, 32
"""Rows and columns of the face that the networks see, and of its latents."""


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
class AudioBlock:
    """Sound as a source delivers it, as much as came at once.

    Attributes:
        samples: float32 `[samples, channels]`, full scale at 1.0, at the rate of its source.
        arrived: Monotonic seconds at which the block was complete.
        ends: A segment ends with it, as its sender says: nothing more of it is waited for.
        segment: The number that its sender gives that segment, or None.
    """

    samples: Samples
    arrived: float
    ends: bool = False
    segment: int | None = None


class Fate(enum.Enum):
    """What becomes of a frame, decided by `engine.fate.decide` alone."""

    SPEAKING = enum.auto()
    """The networks make its face."""
    FADING = enum.auto()
    """The networks make its face, and part of it shows: the cross-fade to or from the idle picture."""
    IDLE = enum.auto()
    """Nothing is said: the idle picture."""
    PASS_THROUGH = enum.auto()
    """Something is said, and the source frame has no face: the source frame."""
    BROKEN = enum.auto()
    """The face that was made for it is not a number: the source frame."""
    HELD = enum.auto()
    """It could not be shown in time: the picture before it, with its own sound."""
    DISCARDED = enum.auto()
    """It belongs to what an interrupt cut off: the idle picture, in silence."""

    @property
    def is_made(self) -> bool:
        """True where the networks make a face."""
        return self in {Fate.SPEAKING, Fate.FADING}

    @property
    def is_idle(self) -> bool:
        """True where the frame took no model work because there was nothing to make."""
        return self in {Fate.IDLE, Fate.PASS_THROUGH, Fate.DISCARDED}


class Utterance(NamedTuple):
    """A stretch of speech, from where the voice gate opens to where it closes.

    Attributes:
        number: In its stream, from 0.
        arrived: Monotonic seconds at which its first sound arrived.
    """

    number: int
    arrived: float


@dataclass(frozen=True, slots=True, eq=False)
class FrameRequest:
    """One frame whose sound is known and whose picture is not.

    Attributes:
        index: Number of the frame in its session, from 0.
        tokens: `[10 * layers, width]`, the audio tokens before the position table is added; None where the
            networks do not make the frame.
        audio: float32 `[samples, channels]`, the frame's own slice of the sound at the source's rate.
        arrived: Monotonic seconds at which the first sample of the slice arrived.
        ready: Monotonic seconds at which the hop that made the frame computable was complete.
        hop: Number of that hop.
        fate: What becomes of it, as far as it is known.
        weight: How much of the speaking face shows, 0..1; the rest is the idle picture.
        late_from: Monotonic seconds after which the frame cannot be shown in time.
        epoch: How many interrupts its session had seen when the frame became computable.
        source: Number of the avatar's frame that it is put into.
        utterance: What it is of; None where nothing is said.
        short: It was made with less look-ahead than it wants.
        ends: Segments of the sound that end in its slice, as their sender says: their numbers, or None.
        elsewhere: Another session shows it; it is made where its batch has a frame that this one shows.
    """

    index: int
    tokens: Tensor | None
    audio: Samples
    arrived: float
    ready: float
    hop: int
    fate: Fate = Fate.SPEAKING
    weight: float = 1.0
    late_from: float = math.inf
    epoch: int = 0
    source: int = 0
    utterance: Utterance | None = None
    short: bool = False
    ends: tuple[int | None, ...] = ()
    elsewhere: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A finished frame and the sound that belongs to it.

    Attributes:
        request: What the frame was made for.
        image: uint8 `[height, width, 3]`, BGR; shared, so nobody may write into it.
        pts: Seconds from the start of the stream, exactly.
        composited: Monotonic seconds at which the picture lay finished in host memory.
        fate: What became of it.
        idle: The picture that takes its place after an interrupt, like `image`; None where there is none.
        passed_over: An utterance behind it is due before it, so its picture is shown for no time.
    """

    request: FrameRequest
    image: Image
    pts: Fraction
    composited: float
    fate: Fate = Fate.SPEAKING
    idle: Image | None = None
    passed_over: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Pictures that are shown forward, then backward, at their own rate.

    Attributes:
        pictures: uint8 `[height, width, 3]`, BGR, each.
        fps: Frames per second, exactly.
    """

    pictures: Sequence[Image]
    fps: Fraction


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


class Delivery(enum.Enum):
    """How a source gives its sound, and who waits when it is not taken."""

    RECORDED = enum.auto()
    """As fast as it is taken: a file."""
    SENT = enum.auto()
    """At the sender's own time; what is not taken waits with the sender, and nothing is lost: a pipe."""
    PLAYED = enum.auto()
    """At its own speed, without a gap, whether or not it is taken: a file that is played."""
    LIVE = enum.auto()
    """At its own time whether or not it is taken, and silent where nothing comes: a microphone."""

    @property
    def waits(self) -> bool:
        """True where sound that is not taken comes later; else who falls behind must leave something out."""
        return self in {Delivery.RECORDED, Delivery.SENT}


class AudioSource(Protocol):
    """Where sound comes from.

    Attributes:
        sample_rate: Samples per second of every block.
        channels: Channels of every block.
        delivery: How the sound comes.
        lost_samples: Samples of each channel that came and could not be kept.
    """

    sample_rate: int
    channels: int
    delivery: Delivery
    lost_samples: int

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield the blocks in order until the sound ends."""

    def discard(self) -> None:
        """Throw away what came and was not yielded, after an interrupt; safe to call from another thread."""

    def close(self) -> None:
        """Stop: a blocked or later iteration ends; safe to call twice and from another thread."""


class Sink(Protocol):
    """Where frames go. Everything but `abort` is called from one thread.

    Attributes:
        name: What messages and reports call it.
        watched: True where somebody watches as the frames come, so that each must come at its time.
    """

    name: str
    watched: bool

    def open(self, stream: StreamFormat) -> None:
        """Prepare for frames of one format; called once, before the first frame."""

    def write(self, frame: Frame) -> None:
        """Take the next frame; may wait while the sink is full."""

    def finish(self) -> None:
        """Complete the result and put it in its final place."""

    def abort(self) -> None:
        """End at once; what is of no use in part is removed. Safe to call at any time, and twice."""


@runtime_checkable
class HeardSink(Sink, Protocol):
    """A sink that somebody hears, which takes its time: pictures elsewhere wait for it."""

    @property
    def delay_s(self) -> float:
        """Seconds from the time at which a frame is written to the time at which it is heard."""

    @property
    def breaks(self) -> int:
        """How often the sound was broken off, since frames or the processor came too late."""

    def mute(self, epoch: int) -> None:
        """Let nothing be heard that was written, nor what is older than an epoch; from any thread."""
