"""A stream's sound on its two ways: resampled to the encoder, and cut into the frames' own slices."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass

import numpy as np

from musetalk_cli.media.resample import StreamResampler
from musetalk_cli.timeline import ROWS_PER_SECOND, Timeline
from musetalk_cli.types import Samples

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class FrameSound:
    """The sound of one frame.

    Attributes:
        samples: float32 `[n, channels]` at the stream's rate.
        arrived: Monotonic seconds at which its first sample arrived.
        ends: Segments that end in it: their numbers, or None.
    """

    samples: Samples
    arrived: float
    ends: tuple[int | None, ...]


class SoundTrack:
    """Keeps the sound of frames that are not made yet, and when it arrived.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        sample_rate: Samples per second of the sound.
        channels: Channels of the sound.
    """

    def __init__(self, timeline: Timeline, sample_rate: int, channels: int) -> None:
        self._timeline = timeline
        self._rate = sample_rate
        self._resampler = StreamResampler(sample_rate)
        self._blocks: deque[Samples] = deque([np.zeros((0, channels), np.float32)])
        self._start = 0
        self._fed = 0
        self._told = False
        self._arrivals: deque[tuple[int, float]] = deque()
        # samples of the stream at which segments end, whose frames were not taken yet, and their numbers
        self._ends: deque[tuple[int, int | None]] = deque()

    @property
    def heard(self) -> int:
        """Samples of each channel that were heard so far."""
        return self._fed

    @property
    def waiting(self) -> int:
        """Those of them whose frames were not taken yet."""
        return self._fed - self._start

    @property
    def is_untold(self) -> bool:
        """True where a segment has ended, and no frame that was taken says so."""
        return bool(self._ends)

    def append(
        self, samples: Samples, arrived: float, *, ends: bool = False, segment: int | None = None
    ) -> Samples:
        """Take float32 `[n, channels]`, give the mono float32 `[m]` at 16 kHz that are final.

        Args:
            samples: The sound.
            arrived: Monotonic seconds at which it was complete.
            ends: A segment ends with it.
            segment: The number of that segment, or None.
        """
        self._blocks.append(samples)
        self._fed += len(samples)
        if ends:
            self._ends.append((self._fed, segment))
        self._arrivals.append((self._fed, arrived))
        heard = self._resampler.resample(samples)
        if not self._told and self._resampler.cancelled_at is not None:
            self._told = True
            log.warning(
                "The channels of the sound cancel each other from %.2f s on: the louder one is heard.",
                self._resampler.cancelled_at,
            )
        return heard

    def flush(self) -> Samples:
        """The last samples at 16 kHz."""
        return self._resampler.flush()

    def mute(self) -> None:
        """Forget what the sound of frames that are not made yet said, but not how long it was."""
        self._blocks = deque(np.zeros_like(block) for block in self._blocks)
        self._ends.clear()

    def take(self, frames: range, *, final: bool) -> list[FrameSound]:
        """The sound of the next frames; the last frame of a stream takes what is left over too."""
        if not frames:
            return []
        held = np.concatenate(self._blocks)
        bounds = [self._timeline.frame_start(frame, self._rate) - self._start for frame in frames]
        end = len(held) if final else self._timeline.frame_start(frames.stop, self._rate) - self._start
        sounds = [
            FrameSound(
                held[first:last], self._arrival(self._start + first), self._ended_by(self._start + last)
            )
            for first, last in zip(bounds, [*bounds[1:], end], strict=True)
        ]
        self._blocks = deque([held[end:].copy()])
        self._start += end
        return sounds

    def _ended_by(self, sample: int) -> tuple[int | None, ...]:
        """Segments that end up to a sample; each is told once."""
        ended = []
        while self._ends and self._ends[0][0] <= sample:
            ended.append(self._ends.popleft()[1])
        return tuple(ended)

    def row_arrived(self, row: int) -> float:
        """When the first sample of a row of the encoder arrived; its frame must not be taken yet."""
        sample = row * self._rate // ROWS_PER_SECOND
        return next((arrived for fed, arrived in self._arrivals if fed > sample), self._arrivals[-1][1])

    def _arrival(self, sample: int) -> float:
        """When a sample arrived; to be asked for in ascending order."""
        while len(self._arrivals) > 1 and self._arrivals[0][0] <= sample:
            self._arrivals.popleft()
        return self._arrivals[0][1]
