"""The state of one stream inside the engine: from its sound to its finished frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.fate import decide
from musetalk_cli.engine.pictures import Pictures
from musetalk_cli.engine.sound_track import SoundTrack
from musetalk_cli.engine.voice_gate import Fade, Onset
from musetalk_cli.engine.windows import FeatureStream
from musetalk_cli.errors import InputError
from musetalk_cli.timeline import Loop, Timeline, ceil_div
from musetalk_cli.types import Clip, Fate, Frame, FrameRequest, Image, Samples, StreamFormat, Utterance

if TYPE_CHECKING:
    from torch import Tensor

    from musetalk_cli.avatar.data import Avatar

SHORTEST_REST = Fraction(2, 5)
"""Seconds of neighbouring frames at rest in which silence stays."""


@dataclass(frozen=True, slots=True, eq=False)
class SessionOptions:
    """How a session treats silence and lateness.

    Attributes:
        silence: The level that is silence; None makes every frame.
        idle: Pictures shown in silence, each of the avatar's size; None is the avatar's own frames.
        late_after_s: Seconds after which a frame that was due is held instead of made; infinite makes all.
    """

    silence: SilenceLevel | None = None
    idle: Clip | None = None
    late_after_s: float = math.inf


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of a frame before its features are."""

    index: int
    weight: float
    late_from: float
    source: int
    fate: Fate
    utterance: Utterance | None


class Session:
    """One stream: an avatar, its sound, and the frames they become. Made by `Engine.open`.

    All but `interrupt` and `epoch` belong to the thread that steps the engine.

    Args:
        avatar: Who speaks.
        features: Sound to tokens.
        timeline: Index arithmetic at the stream's frame rate.
        stream: Format of the frames and their sound.
        options: How it treats silence and lateness.
    """

    def __init__(
        self,
        avatar: Avatar,
        features: FeatureStream,
        timeline: Timeline,
        stream: StreamFormat,
        options: SessionOptions,
    ) -> None:
        self.avatar = avatar
        self.stream = stream
        self.timeline = timeline
        self._features = features
        self._options = options
        self._fade = Fade(timeline, options.silence)
        self._sound = SoundTrack(timeline, stream.sample_rate, stream.channels)
        meta = avatar.meta
        shortest = ceil_div(SHORTEST_REST * meta.fps, 1)
        self._pictures = Pictures(avatar, timeline, options.idle)
        self._loop = Loop(meta.frames, timeline, meta.fps, meta.rest_frames, shortest)
        self._period = float(1 / timeline.fps)
        # (samples of the stream, monotonic seconds at which they had arrived), oldest first
        self._arrivals: deque[tuple[int, float]] = deque()
        self._waiting: deque[FrameRequest] = deque()
        self._finished: deque[Frame] = deque()
        self._open_frames = 0
        self._stopped = False
        self._shown: Image | None = None
        self._utterance: Utterance | None = None
        self._epoch = 0
        self._settled = 0

    @property
    def epoch(self) -> int:
        """How many interrupts there were; what belongs to an earlier one is not shown any more."""
        return self._epoch

    @property
    def waiting(self) -> int:
        """Requests that wait to be made."""
        return len(self._waiting)

    @property
    def untaken(self) -> int:
        """Finished frames that nobody has taken."""
        return len(self._finished)

    @property
    def is_done(self) -> bool:
        """True once the sound has ended, or was stopped, and the last frame was finished."""
        return (self._stopped or self._features.cutter.done) and self._open_frames == 0

    @property
    def last_shown(self) -> Image | None:
        """The last picture finished since the last interrupt, or None."""
        return self._shown

    def interrupt(self) -> None:
        """Discard everything that was said and not yet shown; safe to call from any thread.

        Time goes on: the frames that were due keep their places, as idle ones, and the sound its length, as
        silence. So picture and sound stay together, and nothing has to be caught up.
        """
        self._epoch += 1

    def settle(self) -> None:
        """Act on interrupts, in the thread that steps the engine."""
        if self._settled == self._epoch:
            return
        self._settled = self._epoch
        self._shown = None
        self._features.mute()
        self._fade.mute()
        self._sound.mute()
        fate = decide(0.0, has_face=False, late=False, discarded=True)
        self._waiting = deque(
            replace(request, tokens=None, fate=fate, weight=0.0, utterance=None) for request in self._waiting
        )

    def hear(self, samples: Samples, arrived: float) -> None:
        """Add sound.

        Args:
            samples: float32 `[n, channels]` at the stream's rate.
            arrived: Monotonic seconds at which its last sample arrived.
        """
        self.settle()
        self._listen(self._sound.append(samples, arrived))
        self._arrivals.append((self._features.cutter.total, arrived))

    def end_sound(self, now: float) -> None:
        """End the sound: what is left becomes the last frames.

        Raises:
            InputError: The whole sound is shorter than one frame.
        """
        cutter = self._features.cutter
        self._listen(self._sound.flush())
        cutter.end()
        self._arrivals.append((cutter.total, now))
        if self.timeline.frames_in(cutter.total) == 0:
            raise InputError(
                f"The sound is shorter than one frame ({float(1000 / self.timeline.fps):.0f} ms).",
                "Pass a longer sound.",
            )

    def _listen(self, samples: Samples) -> None:
        self._features.cutter.append(samples)
        self._fade.listen(samples)

    def hop_ready(self) -> float | None:
        """When the sound of the next hop was complete, or None while it is not."""
        hop = None if self._stopped else self._features.cutter.due()
        if hop is None:
            return None
        while len(self._arrivals) > 1 and self._arrivals[0][0] < hop.end:
            self._arrivals.popleft()
        return self._arrivals[-1][1] if hop.final else self._arrivals[0][1]

    def advance(self, now: float) -> None:
        """Turn a due hop into frame requests; it is encoded where one of its frames is made.

        Args:
            now: Monotonic seconds; a frame that is late by now is held.
        """
        hop, ready = self._features.cutter.due(), self.hop_ready()
        if hop is None or ready is None:
            return
        frames = self._features.frames(hop)
        plans = self._plan(frames, ready, now)
        if any(plan.fate.is_made for plan in plans):
            tokens: Sequence[Tensor | None] = self._features.advance(hop, frames)
        else:
            self._features.skip(hop, frames)
            tokens = [None] * len(frames)
        sounds = self._sound.take(frames, final=hop.final)
        for plan, heard, sound in zip(plans, tokens, sounds, strict=True):
            self._waiting.append(
                FrameRequest(
                    plan.index,
                    heard if plan.fate.is_made else None,
                    sound.samples,
                    sound.arrived,
                    ready,
                    hop.number,
                    plan.fate,
                    plan.weight,
                    plan.late_from,
                    self._settled,
                    plan.source,
                    plan.utterance,
                )
            )
        self._open_frames += len(plans)

    def _plan(self, frames: range, ready: float, now: float) -> list[_Plan]:
        """What is known of frames whose hop was complete at `ready`."""
        plans = []
        for number, frame in enumerate(frames):
            weight, onset = self._fade.speech(frame)
            source = self._loop.next(resting=weight == 0)
            late_from = ready + self._options.late_after_s + number * self._period
            has_face = self.avatar.patches[source] is not None
            fate = decide(weight, has_face=has_face, late=late_from < now)
            plans.append(_Plan(frame, weight, late_from, source, fate, self._utterance_of(onset)))
        return plans

    def _utterance_of(self, onset: Onset | None) -> Utterance | None:
        if onset is not None and (self._utterance is None or self._utterance.number != onset.number):
            self._utterance = Utterance(onset.number, self._sound.row_arrived(onset.row))
        return None if onset is None else self._utterance

    def hold_late(self, now: float) -> None:
        """The one place where waiting frames are left out: those that cannot be shown in time any more.

        What is left out shows the picture before it, with its own sound, and costs no model work, so that
        the newest come next. Sound is never left out.
        """
        for position, request in enumerate(self._waiting):
            if request.late_from < now:
                fate = decide(
                    request.weight, has_face=True, late=True, discarded=request.fate is Fate.DISCARDED
                )
                self._waiting[position] = replace(request, tokens=None, fate=fate)

    def next_request(self) -> FrameRequest:
        """Take the oldest request that waits."""
        return self._waiting.popleft()

    def assemble(self, request: FrameRequest, patches: Iterator[Image | None], now: float) -> None:
        """Assemble the frame of a request; requests come back in their order.

        Args:
            request: What `next_request` gave.
            patches: Finished patches of the requests that are made, in their order; one is taken where this
                one is. None stands for a face that is not a number.
            now: Monotonic seconds.
        """
        idle = self._pictures.idle(request)
        patch, fate = None, request.fate
        if fate.is_made:
            patch = next(patches)
            fate = decide(request.weight, has_face=True, late=False, broken=patch is None)
        image = self._pictures.show(request, fate, patch, idle, self._shown)
        pts = self.timeline.pts(request.index)
        self._finished.append(Frame(request, image, pts, now, fate, idle))
        # what was made of sound before an interrupt is nothing that a late frame may hold on to
        if request.epoch == self._settled:
            self._shown = image
        self._open_frames -= 1

    def take(self) -> Frame:
        """Take the oldest finished frame; `untaken` says whether there is one."""
        return self._finished.popleft()

    def stop(self) -> None:
        """Make nothing more: what waits is forgotten, and what is on its way is finished."""
        self._stopped = True
        self._open_frames -= len(self._waiting)
        self._waiting.clear()
