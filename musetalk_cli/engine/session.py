"""The state of one stream inside the engine: from its sound to its finished frames."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from musetalk_cli.engine.fate import decide
from musetalk_cli.engine.hearing import Hearing
from musetalk_cli.engine.mirrored_loop import MirroredLoop
from musetalk_cli.engine.pictures import Pictures
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.timeline import Timeline, rows_in
from musetalk_cli.types import Fate, Frame, FrameRequest, Image, Samples, StreamFormat, Utterance

if TYPE_CHECKING:
    from torch import Tensor

    from musetalk_cli.avatar.data import Avatar
    from musetalk_cli.nets.audio_encoder import EncodeRequest


class Session:
    """One stream: an avatar, its sound, and the frames they become. Made by `Engine.open`.

    All but `interrupt` and `epoch` belong to the thread that steps the engine.

    Args:
        avatar: Who speaks.
        hearing: Its sound.
        timeline: Index arithmetic at the stream's frame rate.
        stream: Format of the frames and their sound.
        options: How it treats silence and time.
        batch_span: How far apart two frames of one batch can be.

    Attributes:
        failure: What it failed with, by itself, or None; the engine does nothing more for it.
        hearing: Its sound, on the way to frames that can be made.
        options: How it treats silence and time.
        shown_later: Frames of an utterance that were taken and wait to be shown; kept by who takes them.
    """

    def __init__(
        self,
        avatar: Avatar,
        hearing: Hearing,
        timeline: Timeline,
        stream: StreamFormat,
        options: SessionOptions,
        batch_span: int = 0,
    ) -> None:
        self.failure: Exception | None = None
        self.avatar = avatar
        self.hearing = hearing
        self.stream = stream
        self.timeline = timeline
        self.shown_later = 0
        self.options = options
        self._batch_span = batch_span
        self._pictures = Pictures(avatar, timeline, options.idle)
        self._loop = MirroredLoop.of(avatar.meta, timeline)
        self._period = float(1 / timeline.fps)
        # the frames of a hop, and whether its windows are encoded
        self._planned: deque[tuple[list[FrameRequest], bool]] = deque()
        self._waiting: deque[FrameRequest] = deque()
        self._finished: deque[Frame] = deque()
        self._open_frames = 0
        self._stopped = False
        self._shown: Image | None = None
        # of the last frame that was finished
        self._said: Utterance | None = None
        self._epoch = 0
        self._settled = 0

    @property
    def epoch(self) -> int:
        """How many interrupts there were; what belongs to an earlier one is not shown any more."""
        return self._epoch

    @property
    def waiting(self) -> int:
        """Requests that wait to be made, or to be understood."""
        return len(self._waiting) + sum(len(requests) for requests, _ in self._planned)

    @property
    def untaken(self) -> int:
        """Finished frames that nobody has taken."""
        return len(self._finished)

    @property
    def spare_s(self) -> float:
        """Seconds until nothing is left to be shown; infinite where nobody waits for a frame to be made.

        Frames on their way count as those that are finished. It is infinite too where nothing is left in the
        middle of an utterance: small batches cost more for each frame, and a device behind would stay so.
        """
        if not self.options.live or not self._is_to_be_made:
            return math.inf
        ahead = self.shown_later + len(self._finished) + self._open_frames - self.waiting
        said = self._waiting[0].utterance if self._waiting else None
        is_behind = not ahead and said is not None and said == self._said
        return math.inf if is_behind else ahead * self._period

    @property
    def _is_to_be_made(self) -> bool:
        hop = self.hearing.due()
        is_due = hop is not None and not hop.is_silent
        return is_due or any(request.fate.is_made for request in self._waiting)

    def fills(self, made: int, frames: int) -> bool:
        """True where what waits ends a batch, of so many frames that are made, or of so many in all."""
        waiting = chain(self._waiting, *(requests for requests, _ in self._planned))
        for number, request in enumerate(waiting, 1):
            made -= request.fate.is_made
            if made < 0 or number == frames:
                return True
        return False

    @property
    def is_planned(self) -> bool:
        """True once no frame comes any more: the sound has ended, or was stopped."""
        return self._stopped or self.hearing.done

    @property
    def is_done(self) -> bool:
        """True once the sound has ended, or was stopped, and the last frame was finished."""
        return self.is_planned and self._open_frames == 0

    def interrupt(self) -> None:
        """Discard everything that was said and not yet shown; safe to call from any thread.

        Time goes on: the frames that were planned keep their places, as idle ones, and what was heard keeps
        its length, as silence. So picture and sound stay together, and nothing has to be caught up.
        """
        self._epoch += 1

    def settle(self) -> None:
        """Act on interrupts, in the thread that steps the engine."""
        if self._settled == self._epoch:
            return
        self._settled = self._epoch
        self._shown = None
        self.hearing.mute()
        fate = decide(0.0, has_face=False, late=False, discarded=True)
        self._waiting = deque(
            replace(request, tokens=None, fate=fate, weight=0.0, utterance=None, ends=())
            for request in self._waiting
        )

    def hear(
        self, samples: Samples, arrived: float, *, ends: bool = False, segment: int | None = None
    ) -> None:
        """Add sound.

        Args:
            samples: float32 `[n, channels]` at the stream's rate.
            arrived: Monotonic seconds at which its last sample arrived.
            ends: A segment ends with it.
            segment: The number of that segment, or None.
        """
        self.settle()
        self.hearing.hear(samples, arrived, ends=ends, segment=segment)

    def end_sound(self, now: float) -> None:
        """End the sound: what is left becomes the last frames.

        Raises:
            InputError: The whole sound is shorter than one frame.
        """
        self.settle()
        self.hearing.end(now)

    def hop_ready(self) -> float | None:
        """When the sound of the next hop was complete, or None while it is not."""
        hop = None if self._stopped else self.hearing.due()
        return None if hop is None else self.hearing.ready(hop)

    def advance(self, now: float) -> list[EncodeRequest]:
        """Turn a due hop into frame requests; `understand` takes what the encoder gives for what is asked.

        Args:
            now: Monotonic seconds; a frame that is late by now is held.
        """
        hop = None if self._stopped else self.hearing.due()
        if hop is None:
            return []
        ready = self.hearing.ready(hop)
        utterance = self.hearing.utterance(hop.speech[0].onset)
        sounds, part = self.hearing.sounds(hop), self.options.part
        requests = []
        for number, (frame, speech, sound) in enumerate(zip(hop.frames, hop.speech, sounds, strict=True)):
            source = self._loop.next(resting=speech.weight == 0)
            late_from = self._due(frame, ready + number * self._period) + self.options.late_after_s
            has_face = self.avatar.patches[source] is not None
            requests.append(
                FrameRequest(
                    index=frame,
                    tokens=None,
                    audio=sound.samples,
                    arrived=sound.arrived,
                    ready=ready,
                    hop=hop.number,
                    fate=decide(speech.weight, has_face=has_face, late=late_from < now),
                    weight=speech.weight,
                    late_from=late_from,
                    epoch=self._settled,
                    source=source,
                    utterance=utterance,
                    short=hop.short and utterance is not None,
                    ends=sound.ends,
                    elsewhere=not part.holds(frame),
                )
            )
        made = any(request.fate.is_made for request in requests)
        heard = made and part.hears(hop.frames, rows_in(hop.end), self.timeline, self._batch_span)
        self._planned.append((requests, heard))
        self._open_frames += len(requests)
        return self.hearing.plan(hop, made=made, heard=heard)

    def understand(self, rows: Sequence[Tensor]) -> None:
        """Give the frames of the first hop that was advanced what they hear.

        Args:
            rows: What the encoder gave for each request of `advance`.
        """
        requests, heard = self._planned.popleft()
        if heard:
            tokens = self.hearing.tokens(rows)
            requests = [
                replace(request, tokens=heard) if request.fate.is_made else request
                for request, heard in zip(requests, tokens, strict=True)
            ]
        self._waiting.extend(requests)

    def _due(self, frame: int, soonest: float) -> float:
        """When a frame is shown, as far as that is known, or else could be."""
        due = None if self.options.due is None else self.options.due(frame)
        return soonest if due is None else due

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

    @property
    def next_is_made(self) -> bool:
        """True where the networks make the frame of the oldest request; there must be one."""
        return self._waiting[0].fate.is_made

    def next_request(self) -> FrameRequest:
        """Take the oldest request that waits."""
        return self._waiting.popleft()

    def assemble(self, request: FrameRequest, patch: Image | None, now: float) -> None:
        """Assemble the frame of a request; requests come back in their order.

        Args:
            request: What `next_request` gave.
            patch: Its finished patch; None where it is not made, or its face is not a number.
            now: Monotonic seconds.
        """
        if not request.elsewhere:
            self._finish(request, patch, now)
        self._open_frames -= 1
        if self.options.part.ends_with(request.index):
            self.stop()

    def _finish(self, request: FrameRequest, patch: Image | None, now: float) -> None:
        idle = self._pictures.idle(request)
        fate = request.fate
        if fate.is_made:
            fate = decide(request.weight, has_face=True, late=False, broken=patch is None)
        image = self._pictures.show(request, fate, patch, idle, self._shown)
        self._finished.append(Frame(request, image, self.timeline.pts(request.index), now, fate, idle))
        # what was made of sound before an interrupt is nothing that a late frame may hold on to
        if request.epoch == self._settled:
            self._shown = image
        self._said = request.utterance

    def take(self) -> Frame:
        """Take the oldest finished frame; `untaken` says whether there is one."""
        return self._finished.popleft()

    def stop(self) -> None:
        """Make nothing more: what waits is forgotten, and what is on its way is finished."""
        self._stopped = True
        self._open_frames -= len(self._waiting)
        self._waiting.clear()
