"""What a session hears: its sound on the way to frames that can be made."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from musetalk_cli.engine.hops import Hop, HopPlanner
from musetalk_cli.engine.sound_track import FrameSound, SoundTrack
from musetalk_cli.engine.voice_gate import Onset
from musetalk_cli.engine.windows import FeatureStream
from musetalk_cli.errors import InputError
from musetalk_cli.nets.audio_encoder import EncodeRequest
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Samples, Utterance

if TYPE_CHECKING:
    from torch import Tensor


class Hearing:
    """Sound of one stream, until its frames are planned. Belongs to the thread that steps the engine.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        features: Sound to tokens.
        planner: Which frames are due.
        sample_rate: Samples per second of the sound.
        channels: Channels of the sound.
    """

    def __init__(
        self,
        timeline: Timeline,
        features: FeatureStream,
        planner: HopPlanner,
        sample_rate: int,
        channels: int,
    ) -> None:
        self._timeline = timeline
        self._features = features
        self._planner = planner
        self._rate = sample_rate
        self._channels = channels
        self._sound = SoundTrack(timeline, sample_rate, channels)
        # (samples of the stream, monotonic seconds at which they had arrived), oldest first
        self._arrivals: deque[tuple[int, float]] = deque()
        self._utterance: Utterance | None = None

    @property
    def done(self) -> bool:
        """True once the sound has ended and its last frame was planned."""
        return self._planner.done

    @property
    def next_frame(self) -> int:
        """The first frame that was not planned yet."""
        return self._planner.next_frame

    @property
    def in_utterance(self) -> bool:
        """True where the last frame that was planned is of an utterance."""
        return self._planner.in_utterance

    @property
    def is_speaking(self) -> bool:
        """True where the sound heard last is in the middle of speech."""
        return self._planner.is_speaking

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
        self._listen(self._sound.append(samples, arrived, ends=ends, segment=segment), arrived)

    def put_in_silence(self, samples: int, now: float) -> None:
        """Let silence take the place of so many samples at the stream's rate that did not come."""
        self._planner.close()
        self.hear(np.zeros((samples, self._channels), np.float32), now)

    def end(self, now: float) -> None:
        """End the sound: what is left becomes the last frames.

        Raises:
            InputError: The whole sound is shorter than one frame.
        """
        self._listen(self._sound.flush(), now)
        frames = max(self._timeline.frames_in(self._features.total), self._planner.next_frame)
        if frames == 0:
            raise InputError(
                f"The sound is shorter than one frame ({float(1000 / self._timeline.fps):.0f} ms).",
                "Pass a longer sound.",
            )
        # where frames did not wait, what is left may be less than one, or only the end of a segment: it keeps
        # its place all the same
        is_left = self._sound.waiting > 0 or self._sound.is_untold
        is_left = is_left and self._planner.next_frame == frames
        self._planner.end(frames + is_left)

    def _listen(self, samples: Samples, arrived: float) -> None:
        self._features.append(samples)
        self._arrivals.append((self._features.total, arrived))
        self._planner.listen(samples)

    def mute(self) -> None:
        """Take all that was heard, and not planned yet, for silence."""
        self._features.mute()
        self._planner.mute()
        self._sound.mute()

    def missing(self, frame: int) -> int:
        """Samples at the stream's rate that have not been heard of a frame's own sound."""
        return max(0, self._timeline.frame_start(frame + 1, self._rate) - self._sound.heard)

    def wait_no_longer(self, frame: int | None = None) -> None:
        """Plan the frames whose own sound is there with what was heard, though they want to hear more.

        Args:
            frame: The last of them; None is all.
        """
        heard = self._timeline.frames_in(self._sound.heard, self._rate)
        self._planner.cut(heard if frame is None else min(frame + 1, heard))

    def due(self) -> Hop | None:
        """The next hop whose sound was heard; the same one until `plan` is called."""
        return self._planner.due()

    def ready(self, hop: Hop) -> float:
        """Monotonic seconds at which the sound of a due hop was complete."""
        while len(self._arrivals) > 1 and self._arrivals[0][0] < hop.end:
            self._arrivals.popleft()
        return self._arrivals[-1][1] if hop.final else self._arrivals[0][1]

    def utterance(self, onset: Onset | None) -> Utterance | None:
        """What begins at an onset; its sound must not be taken yet."""
        if onset is None:
            return None
        if self._utterance is None or self._utterance.number != onset.number:
            self._utterance = Utterance(onset.number, self._sound.row_arrived(onset.row))
        return self._utterance

    def sounds(self, hop: Hop) -> list[FrameSound]:
        """Take the sound of a due hop's frames."""
        return self._sound.take(hop.frames, final=hop.final)

    def plan(self, hop: Hop, *, made: bool, heard: bool = True) -> list[EncodeRequest]:
        """Move past a due hop; what is to be encoded for it.

        Args:
            hop: What `due` gave.
            made: The networks make one of its frames, at the least.
            heard: What they hear is wanted here; `tokens` must be called where both is so.
        """
        self._planner.plan(hop)
        if made and heard:
            return self._features.ask(hop.frames, hop.begin, hop.end)
        if made:
            self._features.leave_out(hop.frames, hop.begin, hop.end)
            return []
        self._features.skip(hop.frames, hop.begin)
        return []

    def tokens(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """The tokens `[10 * layers, width]` of the frames of the first hop that was planned to be made.

        Args:
            rows: What the encoder gave for each of its requests.
        """
        return self._features.give(rows)
