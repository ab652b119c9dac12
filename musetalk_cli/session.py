"""The state of one stream: from its sound to its finished frames."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from musetalk_cli.errors import InputError
from musetalk_cli.features import FeatureStream
from musetalk_cli.soundtrack import SoundTrack
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Frame, FrameRequest, Samples, StreamFormat

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar


class Session:
    """One stream: an avatar, its sound, and the frames they become. Made by `Engine.open`.

    Attributes:
        stream: Format of the frames and their sound.
        finished: Frames in order, for the caller to take.
        ready: Requests in order, for the engine to take.
        served_until: Where the session stands in served time, in seconds; the scheduler's to keep.
        busy: True while it has work; the scheduler's to keep.
    """

    def __init__(
        self, avatar: Avatar, features: FeatureStream, timeline: Timeline, stream: StreamFormat
    ) -> None:
        self.avatar = avatar
        self.stream = stream
        self.timeline = timeline
        self.features = features
        self.finished: deque[Frame] = deque()
        self.ready: deque[FrameRequest] = deque()
        self.served_until = 0.0
        self.busy = False
        self._sound = SoundTrack(timeline, stream.sample_rate, stream.channels)
        self._marks: deque[tuple[int, float]] = deque()
        self._open_frames = 0

    def feed(self, samples: Samples, arrived: float) -> None:
        """Add sound.

        Args:
            samples: float32 `[n, channels]` at the stream's rate.
            arrived: Monotonic seconds at which its last sample arrived.
        """
        self.features.cutter.feed(self._sound.feed(samples, arrived))
        self._marks.append((self.features.cutter.total, arrived))

    def finish(self, now: float) -> None:
        """End the sound: what is left becomes the last frames.

        Raises:
            InputError: The whole sound is shorter than one frame.
        """
        cutter = self.features.cutter
        cutter.feed(self._sound.finish())
        cutter.finish()
        self._marks.append((cutter.total, now))
        if self.timeline.frames_in(cutter.total) == 0:
            raise InputError(
                f"The sound is shorter than one frame ({float(1000 / self.timeline.fps):.0f} ms).",
                "Pass a longer sound.",
            )

    def hop_ready(self) -> float | None:
        """When the sound of the next hop was complete, or None while it is not."""
        hop = self.features.cutter.due()
        if hop is None:
            return None
        while len(self._marks) > 1 and self._marks[0][0] < hop.end:
            self._marks.popleft()
        return self._marks[-1][1] if hop.final else self._marks[0][1]

    def advance(self) -> None:
        """Turn a due hop into frame requests."""
        hop, ready = self.features.cutter.due(), self.hop_ready()
        if hop is None or ready is None:
            return
        frames, tokens = self.features.advance(hop)
        arrivals = [self._sound.arrival(frame) for frame in frames]
        slices = self._sound.cut(frames, final=hop.final)
        for frame, token, audio, arrived in zip(frames, tokens, slices, arrivals, strict=True):
            self.ready.append(FrameRequest(frame, token, audio, arrived, ready, hop.number))
        self._open_frames += len(frames)

    def deliver(self, frame: Frame) -> None:
        """Take over a finished frame."""
        self.finished.append(frame)
        self._open_frames -= 1

    @property
    def done(self) -> bool:
        """True once the sound has ended and its last frame was delivered."""
        return self.features.cutter.done and self._open_frames == 0
