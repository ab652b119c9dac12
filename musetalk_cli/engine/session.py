"""The state of one stream: from its sound to its finished frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import cv2

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.sound_track import SoundTrack
from musetalk_cli.engine.voice_gate import Fade
from musetalk_cli.engine.windows import FeatureStream, Hop
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import Loop, Timeline, ceil_div, mirrored
from musetalk_cli.types import Clip, Frame, FrameRequest, Image, Samples, Shown, StreamFormat

if TYPE_CHECKING:
    from torch import Tensor

    from musetalk_cli.avatar.data import Avatar

SHORTEST_REST = Fraction(2, 5)
"""Seconds of neighbouring frames at rest in which silence stays."""


@dataclass(frozen=True, slots=True, eq=False)
class Manners:
    """How a stream behaves in silence and under load.

    Attributes:
        silence: The level that is silence; None makes every frame.
        idle: Pictures shown in silence, each of the avatar's size; None is the avatar's own frames.
        late_after: Seconds after which a frame that was due is left out; infinite where every frame is made.
    """

    silence: SilenceLevel | None = None
    idle: Clip | None = None
    late_after: float = math.inf


class Session:
    """One stream: an avatar, its sound, and the frames they become. Made by `Engine.open`.

    All but `interrupt` and `epoch` belong to the thread that steps the engine.

    Attributes:
        stream: Format of the frames and their sound.
        finished: Frames in order, for the caller to take.
        ready: Requests in order, for the engine to take.
        served_until: Where the session stands in served time, in seconds; the scheduler's to keep.
        busy: True while it has work; the scheduler's to keep.
        on_interrupt: Called by `interrupt` before anything else, to discard what has not reached the session.
        shown: The last picture delivered since the last interrupt, or None.
    """

    def __init__(
        self,
        avatar: Avatar,
        features: FeatureStream,
        timeline: Timeline,
        stream: StreamFormat,
        manners: Manners,
    ) -> None:
        self.avatar = avatar
        self.stream = stream
        self.timeline = timeline
        self.features = features
        self.finished: deque[Frame] = deque()
        self.ready: deque[FrameRequest] = deque()
        self.served_until = 0.0
        self.busy = False
        self.on_interrupt: Callable[[], None] = lambda: None
        self.shown: Image | None = None
        self._manners = manners
        self._presence = Fade(timeline, manners.silence)
        self._sound = SoundTrack(timeline, stream.sample_rate, stream.channels)
        self._marks: deque[tuple[int, float]] = deque()
        self._open_frames = 0
        meta = avatar.meta
        shortest = ceil_div(SHORTEST_REST * meta.fps, 1)
        self._loop = Loop(meta.frames, timeline, meta.fps, meta.rest_frames, shortest)
        self._period = float(1 / timeline.fps)
        self._epoch = 0
        self._settled = 0

    @property
    def epoch(self) -> int:
        """How many interrupts there were; what belongs to an earlier one is not shown any more."""
        return self._epoch

    def interrupt(self) -> None:
        """Discard everything that was said and not yet shown; safe to call from any thread.

        Time goes on: the frames that were due keep their places, as idle ones, and the sound its length, as
        silence. So picture and sound stay together, and nothing has to be caught up.
        """
        self.on_interrupt()
        self._epoch += 1

    def settle(self) -> None:
        """Act on interrupts, in the thread that steps the engine."""
        if self._settled == self._epoch:
            return
        self._settled = self._epoch
        self.shown = None
        self.features.silence()
        self._presence.silence()
        self._sound.silence()
        self.ready = deque(replace(request, tokens=None, weight=0.0) for request in self.ready)

    def feed(self, samples: Samples, arrived: float) -> None:
        """Add sound.

        Args:
            samples: float32 `[n, channels]` at the stream's rate.
            arrived: Monotonic seconds at which its last sample arrived.
        """
        self.settle()
        self._hear(self._sound.feed(samples, arrived))
        self._marks.append((self.features.cutter.total, arrived))

    def finish(self, now: float) -> None:
        """End the sound: what is left becomes the last frames.

        Raises:
            InputError: The whole sound is shorter than one frame.
        """
        cutter = self.features.cutter
        self._hear(self._sound.finish())
        cutter.finish()
        self._marks.append((cutter.total, now))
        if self.timeline.frames_in(cutter.total) == 0:
            raise InputError(
                f"The sound is shorter than one frame ({float(1000 / self.timeline.fps):.0f} ms).",
                "Pass a longer sound.",
            )

    def _hear(self, samples: Samples) -> None:
        self.features.cutter.feed(samples)
        self._presence.feed(samples)

    def hop_ready(self) -> float | None:
        """When the sound of the next hop was complete, or None while it is not."""
        hop = self.features.cutter.due()
        if hop is None:
            return None
        while len(self._marks) > 1 and self._marks[0][0] < hop.end:
            self._marks.popleft()
        return self._marks[-1][1] if hop.final else self._marks[0][1]

    def advance(self, now: float) -> None:
        """Turn a due hop into frame requests; it is encoded where one of its frames is made.

        Args:
            now: Monotonic seconds; a frame that is late by now is left out.
        """
        hop, ready = self.features.cutter.due(), self.hop_ready()
        if hop is None or ready is None:
            return
        frames = self.features.frames(hop)
        weights = self._presence.weights(frames)
        first = ready + self._manners.late_after
        deadlines = [first + number * self._period for number in range(len(frames))]
        made = [weight > 0 and deadline >= now for weight, deadline in zip(weights, deadlines, strict=True)]
        tokens = self._tokens(hop, frames, encode=any(made))
        arrivals = [self._sound.arrival(frame) for frame in frames]
        slices = self._sound.cut(frames, final=hop.final)
        for number, frame in enumerate(frames):
            self.ready.append(
                FrameRequest(
                    frame, tokens[number] if made[number] else None, slices[number], arrivals[number], ready,
                    hop.number, weights[number], deadlines[number], self._settled,
                    dropped=weights[number] > 0 and not made[number],
                    source=self._loop.next(resting=weights[number] == 0),
                )
            )  # fmt: skip
        self._open_frames += len(frames)

    def drop_late(self, now: float) -> None:
        """The one place where frames that wait are left out: those that cannot be shown in time any more.

        What is left out is shown as the picture before it, with its own sound, and costs no model work, so
        that the newest come next. Sound is never left out.
        """
        for place, request in enumerate(self.ready):
            if request.tokens is not None and request.deadline < now:
                self.ready[place] = replace(request, tokens=None, dropped=True)

    def picture(self, request: FrameRequest, patches: Iterator[Image | None]) -> tuple[Image, Shown, Image]:
        """A source frame with the next patch pasted in, or what takes no model work.

        Args:
            request: The frame.
            patches: Finished patches of the requests that are made and have a face, in their order; None for
                a face that is not a number.

        Returns:
            The picture, what it is, and the idle picture at its place, a read-only view of a shared one.
        """
        idle = self._idle_picture(request)
        if request.tokens is None:
            if request.dropped:
                return idle if self.shown is None else self.shown, Shown.HELD, idle
            return idle, Shown.IDLE, idle
        patch = self.avatar.patches[request.source]
        made = None if patch is None else next(patches)
        instead = Shown.IDLE if patch is None else Shown.BROKEN
        elsewhere = self._manners.idle is not None
        if made is None and not elsewhere:
            return idle, instead, idle
        image: Image = self.avatar.frames[request.source].copy()
        changed = slice(None), slice(None)
        if patch is not None and made is not None:
            image[patch.box.slices()] = made
            changed = changed if elsewhere else patch.box.slices()
        if request.weight < 1:
            part = image[changed]
            image[changed] = cv2.addWeighted(part, request.weight, idle[changed], 1 - request.weight, 0)
        return image, instead if made is None else Shown.SPEAKING, idle

    def _idle_picture(self, request: FrameRequest) -> Image:
        idle = self._manners.idle
        picture = self.avatar.frames[request.source]
        if idle is not None:
            shown = self.timeline.source_frame(request.index, idle.fps)
            picture = idle.pictures[mirrored(shown, len(idle.pictures))]
        view: Image = picture.view()
        view.flags.writeable = False
        return view

    @property
    def leaves_out(self) -> bool:
        """True where late frames are left out."""
        return math.isfinite(self._manners.late_after)

    def deliver(self, frame: Frame) -> None:
        """Take over a finished frame."""
        self.finished.append(frame)
        if frame.request.epoch == self._settled:
            self.shown = frame.image
        self._open_frames -= 1

    @property
    def done(self) -> bool:
        """True once the sound has ended and its last frame was delivered."""
        return self.features.cutter.done and self._open_frames == 0

    def _tokens(self, hop: Hop, frames: range, *, encode: bool) -> Sequence[Tensor | None]:
        if encode:
            return self.features.advance(hop, frames)
        self.features.skip(hop, frames)
        return [None] * len(frames)
