"""Containers that pictures and sound are written to: the muxer of each, its codecs and their options."""

from __future__ import annotations

import functools
import math
import subprocess
from dataclasses import dataclass
from itertools import pairwise

from musetalk_cli.media import ffmpeg
from musetalk_cli.types import StreamFormat

_H264 = "-c:v libx264 -preset veryfast -crf 18"
_H264_AT_ONCE = f"{_H264} -tune zerolatency"
_VP9 = "-c:v libvpx-vp9 -crf 24 -b:v 0 -deadline good -cpu-used 4 -row-mt 1"
_VP9_AT_ONCE = "-c:v libvpx-vp9 -crf 24 -b:v 0 -deadline realtime -cpu-used 8 -row-mt 1 -lag-in-frames 0"
_OPUS = "-c:a libopus -b:a 128k"


@dataclass(frozen=True, slots=True)
class Container:
    """What differs between the places that pictures and sound can go to.

    A streamed container can be read while it is written: its codec holds no frames back, a keyframe comes at
    least every second, and every packet is flushed. Coded sound has a priming that a reader must cut off:
    1024 samples of AAC, which is more than a frame at 16 kHz. So its sound is coded at 44.1 or 48 kHz, where
    even a reader that leaves the priming in is off by less than one frame.

    Attributes:
        muxer: The muxer with its options, as ffmpeg is told.
        picture: The picture codec with its options.
        sound: The sound codec with its options; empty for pictures alone.
        streamed: True where it is read while it is written.
        resampled: True where sound of other rates than 44.1 and 48 kHz is coded at 48 kHz.
        rate: Options that bound the rate of the picture; empty where nothing does.
    """

    muxer: str
    picture: str = _H264_AT_ONCE
    sound: str = "-c:a aac -b:a 192k"
    streamed: bool = True
    resampled: bool = True
    rate: str = ""

    def options(self, stream: StreamFormat) -> str:
        """What ffmpeg is told of the output for one stream; none of it can hold a space of its own."""
        told = [self.picture, self.sound, self.rate]
        if self.sound and self.resampled and stream.sample_rate not in (44_100, 48_000):
            told.append("-ar 48000")
        if self.streamed:
            told.append(f"-g {max(1, math.floor(stream.fps))} -flush_packets 1")
        return " ".join([*filter(None, told), self.muxer])


MP4 = Container("-movflags +faststart -f mp4", _H264, streamed=False, resampled=False)
"""A file that is complete or nothing."""
FRAGMENTED = Container("-movflags +frag_keyframe+delay_moov+default_base_moof -f mp4")
"""An MP4 in fragments of at most 1 s: what has reached the disk is playable, whatever happens then."""
MATROSKA = Container("-cluster_time_limit 0 -f matroska", sound="-c:a pcm_s16le", resampled=False)
"""For a player at the other end of a pipe."""

FILES = {
    ".mp4": MP4,
    ".mov": Container("-movflags +faststart -f mov", _H264, streamed=False, resampled=False),
    ".mkv": Container("-f matroska", _H264, streamed=False, resampled=False),
    ".webm": Container("-f webm", _VP9, _OPUS, streamed=False, resampled=False),
}
"""By suffix: files that are complete or nothing."""
_CLUSTERS = "-cluster_time_limit 1000"
RECORDINGS = {
    ".mp4": FRAGMENTED,
    ".mov": Container("-movflags +frag_keyframe+delay_moov -f mov"),
    ".mkv": Container(f"{_CLUSTERS} -f matroska"),
    ".webm": Container(f"{_CLUSTERS} -f webm", _VP9_AT_ONCE, _OPUS, resampled=False),
}
"""By suffix: files that are playable while they grow, whatever happens, to within their last second."""
_NETWORK_RATE = "-maxrate 6000k -bufsize 6000k"
FLV = Container(
    "-rw_timeout 10000000 -flvflags no_duration_filesize -f flv",
    sound="-c:a aac -b:a 160k",
    rate=_NETWORK_RATE,
)
"""For an RTMP server."""
MPEGTS = Container(
    "-rw_timeout 10000000 -linger 2 -muxdelay 0 -muxpreload 0 -pes_payload_size 0 -f mpegts",
    sound="-c:a aac -b:a 160k",
    rate=_NETWORK_RATE,
)
"""For SRT, which throws away what is still on its way when it does not linger."""


def missing_codec(container: Container) -> str | None:
    """An encoder that a container needs and the ffmpeg at hand has not; None where it has all."""
    words = f"{container.picture} {container.sound}".split()
    needed = [name for option, name in pairwise(words) if option.startswith("-c:")]
    return next((name for name in needed if name not in ffmpeg.listed("-encoders")), None)


@functools.cache
def can_send(scheme: str) -> bool:
    """True where the ffmpeg at hand writes to URLs of that scheme."""
    done = subprocess.run(
        [ffmpeg.executable(), "-hide_banner", "-protocols"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return scheme.encode() in done.stdout.partition(b"Output:")[2].split()
