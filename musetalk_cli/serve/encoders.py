"""Pictures and sound as browsers and programs take them: H.264, JPEG and Opus, encoded in this process."""

from __future__ import annotations

import functools
import logging
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
import soxr
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    Interpolation,
    VideoReformatter,
)

from musetalk_cli.errors import OutputError, first_line
from musetalk_cli.media.even import even, to_even
from musetalk_cli.media.sound_channels import as_stereo
from musetalk_cli.types import Image, Samples, StreamFormat

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

log = logging.getLogger(__name__)

VIDEO_CLOCK = 90_000
"""Ticks per second of H.264 in RTP."""
SOUND_CLOCK = 48_000
"""Ticks per second of Opus in RTP, which are its samples."""
PACKET_SAMPLES = 960
"""Samples of each channel in an Opus packet: 20 ms."""

_HARDWARE, _SOFTWARE = "h264_nvenc", "libx264"
_QUALITY = 23
_BITS_PER_PIXEL = 0.15
_RATES = 500_000, 8_000_000
_BITS_PER_CHANNEL = 48_000

# area averages the chroma exactly, without accurate rounding every level is half a level too dark
_EXACT = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_OPTIONS = {
    _SOFTWARE: {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "profile": "baseline",
        "crf": str(_QUALITY),
        "forced-idr": "1",
        "x264-params": "scenecut=0",
    },
    _HARDWARE: {
        "preset": "p3",
        "tune": "ull",
        "profile": "baseline",
        "rc": "vbr",
        "cq": str(_QUALITY),
        "zerolatency": "1",
        "delay": "0",
        "forced-idr": "1",
        "coder": "cavlc",
    },
}


class H264Encoder:
    """One stream as H.264 that every browser decodes: constrained baseline, BT.709 in the limited range.

    Every picture gives one access unit at once. An IDR comes every second, and when it is asked for; the
    parameter sets stand before each.

    Args:
        stream: Format of the pictures; odd sizes get their last column or row twice.
        threads: Threads of the software encoder.
        hardware: Let the GPU encode where it can. It is not used by itself: each encoder there takes a CUDA
            context of its own, which takes turns with the networks.

    Attributes:
        codec: `h264_nvenc` where the GPU encodes, else `libx264`.

    Raises:
        OutputError: Pictures of this size cannot be encoded.
    """

    def __init__(self, stream: StreamFormat, threads: int = 1, *, hardware: bool = False) -> None:
        self._reformatter = VideoReformatter()
        self.codec = _HARDWARE if hardware and hardware_works() else _SOFTWARE
        try:
            self._context = _open(self.codec, stream, threads)
        except av.FFmpegError as error:
            if self.codec == _SOFTWARE:
                raise _refused(error) from error
            # cards have a bound on streams at once
            log.info("The GPU takes no further stream to encode (%s); libx264 does it.", first_line(error))
            self.codec = _SOFTWARE
            self._context = _open(self.codec, stream, threads)

    def encode(self, image: Image, pts: Fraction, *, key: bool = False) -> tuple[bytes, bool]:
        """Encode the next picture.

        Args:
            image: uint8 `[height, width, 3]`, BGR.
            pts: Seconds from the start of the stream; more than that of the picture before.
            key: It must be an IDR.

        Returns:
            An Annex B access unit, and whether it is an IDR.

        Raises:
            OutputError: The encoder failed.
        """
        try:
            return _encode(self._context, self._reformatter, image, pts, key=key)
        except av.FFmpegError as error:
            raise _refused(error) from error


def _refused(error: av.FFmpegError) -> OutputError:
    return OutputError(f"The picture cannot be encoded as H.264: {first_line(error)}.")


def _encode(
    context: VideoCodecContext, reformatter: VideoReformatter, image: Image, pts: Fraction, *, key: bool
) -> tuple[bytes, bool]:
    shown = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(to_even(image)), format="bgr24")
    frame = reformatter.reformat(
        shown,
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        dst_colorspace=Colorspace.ITU709,
        interpolation=_EXACT,
        threads=1,
    )
    frame.pts = math.floor(pts * VIDEO_CLOCK)
    frame.time_base = Fraction(1, VIDEO_CLOCK)
    frame.pict_type = av.video.frame.PictureType.I if key else av.video.frame.PictureType.NONE
    (packet,) = context.encode(frame)
    return bytes(packet), packet.is_keyframe


def _open(codec: str, stream: StreamFormat, threads: int) -> VideoCodecContext:
    """An open encoder for a stream.

    Raises:
        av.FFmpegError: It cannot be had.
    """
    context = av.CodecContext.create(codec, "w")
    assert isinstance(context, av.VideoCodecContext)  # noqa: S101 - says to the type checker what the name means
    context.width, context.height = even(stream.width), even(stream.height)
    context.pix_fmt = "yuv420p"
    context.time_base = Fraction(1, VIDEO_CLOCK)
    context.framerate = stream.fps
    context.gop_size = max(1, math.floor(stream.fps))
    context.max_b_frames = 0
    context.color_range = ColorRange.MPEG
    context.colorspace = Colorspace.ITU709
    context.color_primaries = ColorPrimaries.BT709
    context.color_trc = ColorTrc.BT709
    context.thread_count = threads if codec == _SOFTWARE else 1
    most = _most_bits(stream)
    context.options = {**_OPTIONS[codec], "maxrate": str(most), "bufsize": str(most // 2)}
    context.open()
    return context


def _most_bits(stream: StreamFormat) -> int:
    """Bits per second that the pictures may take."""
    wanted = int(stream.width * stream.height * stream.fps * _BITS_PER_PIXEL)
    return min(max(wanted, _RATES[0]), _RATES[1])


@functools.cache
def hardware_works() -> bool:
    """True where the GPU encodes as it must: one access unit for each picture, at once, in the profile.

    It is asked once in a process, with two pictures, since opening an encoder takes long where it fails.
    """
    stream = StreamFormat(256, 256, Fraction(25), SOUND_CLOCK, 1)
    black, reformatter = np.zeros((256, 256, 3), np.uint8), VideoReformatter()
    try:
        context = _open(_HARDWARE, stream, 1)
        units = [_encode(context, reformatter, black, Fraction(n, 25), key=True) for n in range(2)]
    except (av.FFmpegError, ValueError):  # ValueError: no access unit, or more than one
        return False
    return all(is_key and _is_constrained_baseline(unit) for unit, is_key in units)


def _is_constrained_baseline(unit: bytes) -> bool:
    """True where an access unit has a sequence parameter set of the profile that every browser decodes."""
    at = unit.find(b"\x00\x00\x01\x67")
    profile = unit[at + 4 : at + 6]
    return at >= 0 and len(profile) == 2 and profile[0] == 66 and bool(profile[1] & 0x40)


def jpeg(image: Image, quality: int = 85) -> bytes:
    """A picture uint8 `[height, width, 3]` BGR as JPEG, of quality 1..100."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


@dataclass(frozen=True, slots=True)
class Packet:
    """20 ms of sound as Opus.

    Attributes:
        pts: Samples at 48 kHz from the start of the stream to what a decoder gives first of it.
        data: The packet.
    """

    pts: int
    data: bytes


class OpusEncoder:
    """One stream's sound as Opus, about 48 kbit/s for each channel, with settings for voices.

    The result does not depend on how the sound was cut.

    Args:
        sample_rate: Samples per second of what comes in.
        channels: Channels of what comes in; more than two become stereo.
        start: Samples at 48 kHz from the start of the stream to the first that comes in.
    """

    def __init__(self, sample_rate: int, channels: int, start: int = 0) -> None:
        self._mixed = channels > 2
        self._channels = min(channels, 2)
        self._resampler = None
        if sample_rate != SOUND_CLOCK:
            self._resampler = soxr.ResampleStream(
                sample_rate, SOUND_CLOCK, self._channels, dtype="float32", quality="HQ"
            )
        self._rest: Samples = np.zeros((0, self._channels), np.float32)
        self._next = start
        context = av.CodecContext.create("libopus", "w")
        assert isinstance(context, av.AudioCodecContext)  # noqa: S101 - as above
        context.sample_rate = SOUND_CLOCK
        context.format = "flt"
        context.layout = self._layout
        context.time_base = Fraction(1, SOUND_CLOCK)
        context.bit_rate = _BITS_PER_CHANNEL * self._channels
        # with what a lost packet said in the next one, where that helps: nothing is sent again in time
        context.options = {"application": "voip", "frame_duration": "20", "fec": "1", "packet_loss": "5"}
        context.open()
        self._context = context

    @property
    def _layout(self) -> str:
        return "mono" if self._channels == 1 else "stereo"

    def encode(self, samples: Samples) -> tuple[Packet, ...]:
        """Take the next float32 `[n, channels]`, give the packets that are complete with them."""
        sound = as_stereo(samples) if self._mixed else samples
        if self._resampler is not None:
            sound = self._resampler.resample_chunk(np.ascontiguousarray(sound))
        sound = np.concatenate((self._rest, sound))
        count = len(sound) // PACKET_SAMPLES
        whole, self._rest = sound[: count * PACKET_SAMPLES], sound[count * PACKET_SAMPLES :]
        return tuple(self._packet(part) for part in np.split(whole, count)) if count else ()

    def _packet(self, sound: Samples) -> Packet:
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="flt", layout=self._layout)
        frame.sample_rate = SOUND_CLOCK
        frame.time_base = Fraction(1, SOUND_CLOCK)
        frame.pts = self._next
        self._next += PACKET_SAMPLES
        (packet,) = self._context.encode(frame)
        # it tells of the encoder's own delay: a decoder gives first what lies so long before the sound
        assert packet.pts is not None  # noqa: S101 - as above
        return Packet(packet.pts, bytes(packet))
