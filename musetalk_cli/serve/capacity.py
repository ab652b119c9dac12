"""How many may speak at once, and how many sessions there may be: counted by what each of them costs.

One that speaks costs the device's time. One that is watched, speaking or not, costs time of the processor's
cores, where its pictures and its sound are encoded. On a CPU both are the same cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from musetalk_cli.engine.costs import BUSY_SHARE
from musetalk_cli.engine.engine import Engine
from musetalk_cli.run.job import choose_chunk
from musetalk_cli.serve.encoders import SOUND_CLOCK, H264Encoder, OpusEncoder, jpeg
from musetalk_cli.threads import usable_cores
from musetalk_cli.timeline import Timeline, ceil_div
from musetalk_cli.types import StreamFormat

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar

MOST_SPEAKERS = 1000
"""Speakers of a machine that takes no time."""
SESSIONS_PER_SPEAKER = 4
"""Sessions for each speaker, where none is said: in a conversation each side is silent most of the time."""
JPEGS = 5
"""Pictures that are timed as JPEG, of which one costs as much as the other."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a service takes.

    Attributes:
        speakers: Sessions that may speak at once.
        sessions: Sessions that there may be.
    """

    speakers: int
    sessions: int


@dataclass(frozen=True, slots=True)
class Shares:
    """What one session takes of each second, as a share of all there is.

    Attributes:
        speaking: Of the device, where it speaks.
        encoding: Of the cores, while it is watched.
        on_cores: The device is these cores.
    """

    speaking: float
    encoding: float
    on_cores: bool

    def besides(self, sessions: int) -> float:
        """Of the device, what so many sessions take besides speaking."""
        return sessions * self.encoding if self.on_cores else 0.0

    def capacity(self, max_sessions: int | None) -> Capacity:
        """As many as leave some time to spare.

        To each speaker belong the sessions that rest meanwhile, as far as there may be so many. Where one
        speaker does not fit with all of its own, there is one, with as many as fit.

        Args:
            max_sessions: Sessions that there may be, where that was asked for.
        """
        asked = max_sessions or SESSIONS_PER_SPEAKER * MOST_SPEAKERS

        def fits(speakers: int) -> bool:
            sessions = min(SESSIONS_PER_SPEAKER * speakers, asked) if self.on_cores else speakers
            device = speakers * self.speaking + self.besides(sessions)
            return max(device, sessions * self.encoding) <= BUSY_SHARE

        speakers = max(filter(fits, range(1, MOST_SPEAKERS + 1)), default=1)
        left = BUSY_SHARE - (speakers * self.speaking if self.on_cores else 0.0)
        most = SESSIONS_PER_SPEAKER * speakers
        if self.encoding > 0:
            most = min(most, int(left / self.encoding))
        return Capacity(speakers, max_sessions or max(speakers, most))


def settle(engine: Engine, avatar: Avatar, max_sessions: int | None) -> Capacity:
    """Measure what sessions of an engine that has warmed up cost, and choose its chunk by that.

    Args:
        engine: What makes the frames.
        avatar: Whose pictures are encoded.
        max_sessions: Sessions that there may be, where that was asked for.
    """
    job = engine.job
    on_cores = engine.bundle.device.type == "cpu"
    encoding = encoding_s(avatar, job.fps) * float(job.fps) / usable_cores()
    shares = Shares(0.0, encoding, on_cores)
    choose_chunk(engine, shares.besides(min(SESSIONS_PER_SPEAKER, max_sessions or SESSIONS_PER_SPEAKER)))
    job = engine.job
    return Shares(engine.costs.share(job.chunk, job.fps), encoding, on_cores).capacity(max_sessions)


def encoding_s(avatar: Avatar, fps: Fraction, clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds of one core to encode a frame with its sound, in the form that costs most.

    Args:
        avatar: Whose pictures are encoded: a second of them, since each has one that stands alone.
        fps: Frames per second.
        clock: Seconds of the core; encoders work in the thread that calls them.
    """
    count, timeline = ceil_div(fps, 1), Timeline(fps)
    images = [avatar.frames[number % len(avatar.frames)] for number in range(count)]
    voice = np.random.default_rng(0).normal(0, 0.1, (timeline.frame_start(count, SOUND_CLOCK), 1))
    sounds = np.array_split(voice.astype(np.float32), count)
    video = H264Encoder(StreamFormat(avatar.meta.width, avatar.meta.height, fps, SOUND_CLOCK, 1))
    sound = OpusEncoder(SOUND_CLOCK, 1)
    begun = clock()
    for number, (image, part) in enumerate(zip(images, sounds, strict=True)):
        video.encode(image, timeline.pts(number))
        sound.encode(part)
    encoded = clock()
    for image in images[:JPEGS]:
        jpeg(image)
    return max((encoded - begun) / count, (clock() - encoded) / len(images[:JPEGS]))
