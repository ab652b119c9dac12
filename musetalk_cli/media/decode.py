"""The frames of a video through one ffmpeg: chosen by their time, and looking as players show them."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, NamedTuple

import cv2
import numpy as np

from musetalk_cli.budget import out_of_memory
from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.probe import FORMATS, Probe, input_arguments, is_seekable
from musetalk_cli.media.stills import check_pixels
from musetalk_cli.types import Image

SEEK_MARGIN = Fraction(10)
"""Seconds that are decoded before the wanted start, so that an inexact seek harms nothing."""

_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
_MATRICES = frozenset({"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "bt2020nc", "gbr"})
_WIDE = {"bt2020": "BT.2020", "smpte431": "DCI-P3", "smpte432": "Display P3"}
_UNTOLD = frozenset({"unknown", "reserved"})
_HIGH_DEFINITION = 720
_EXACT = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_TURNS = {
    90: (["transpose=cclock"], ["transpose=clock"]),
    180: (["vflip"], ["vflip"]),
    270: (["transpose=clock"], ["transpose=cclock"]),
}
"""By the turn that ffmpeg has made: filters that undo it, at least for the lines, and make it again."""
_HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
_BROKEN = ("prematurely", "partial file", "corrupt input packet")


@dataclass(frozen=True, slots=True)
class Cut:
    """Which frames of a video are wanted.

    Attributes:
        rate: Frames per second of the clip, at which its frames are counted.
        first: Number of the first frame.
        stop: Number after the last frame, or None for all.
        limit: At most so many frames from the first, or None.
        skip: Frames from the first that are not wanted after all.
        max_size: Pixels of the longer side at most, or None.
        fields: `tff` or `bff`, the field that comes first, or `auto`, as each frame says: frames are
            deinterlaced. None leaves them.
    """

    rate: Fraction
    first: int = 0
    stop: int | None = None
    limit: int | None = None
    skip: int = 0
    max_size: int | None = None
    fields: str | None = None


class Pixmap(NamedTuple):
    """A frame as ffmpeg hands it over: columns, rows, and their pixels as red, green, blue."""

    width: int
    height: int
    data: bytes

    def image(self) -> Image:
        """uint8 `[height, width, 3]`, BGR."""
        pixels = np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, 3)
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)


def treatment(video: Probe) -> tuple[str, ...]:
    """Sentences on what happens to the colours, the transparency and the pixels of a video."""
    notes = []
    if video.transfer in _HDR:
        done = (
            "was converted to the standard range (BT.709)"
            if _converts_range()
            else "was left as it is, because this ffmpeg cannot convert it: colours will look pale"
        )
        notes.append(f"High dynamic range ({_HDR[video.transfer]}) {done}.")
    elif video.primaries in _WIDE:
        notes.append(
            f"Colours of a wide gamut ({_WIDE[video.primaries]}) were kept as they are stored: "
            "they look paler than in the source."
        )
    if (matrix := _assumed_matrix(video)) is not None:
        name, lines = ("709", "720 lines or more") if matrix == "bt709" else ("601", "fewer than 720 lines")
        notes.append(f"The video does not say how its colours are stored: taken as BT.{name} ({lines}).")
    if video.hidden and _alpha_decoder(video) is None:
        notes.append("Transparency was left out, because this ffmpeg cannot read it.")
    elif video.alpha and video.transfer not in _HDR:
        notes.append("Transparent parts, where there are any, were put on black.")
    if video.aspect != 1:
        aspect = f"{video.aspect.numerator}:{video.aspect.denominator}"
        notes.append(
            f"Pixels are {aspect}, not square: frames were stretched to the shape that players show."
        )
    return tuple(notes)


def decode(source: Path, video: Probe, cut: Cut) -> Generator[Pixmap]:
    """Decode the frames of a cut.

    The first frame of the cut always comes, even where it is to be skipped. All have the size of the first.

    Raises:
        InputError: Nothing can be decoded, a frame is too large, or the file is damaged or cut off.
        MuseTalkError: There is not enough memory.
    """
    if video.chroma and video.transfer not in _HDR and video.matrix not in _MATRICES | _UNTOLD:
        raise InputError(
            f"{source} stores colours by the matrix {video.matrix}, which cannot be read.",
            "Convert the video to BT.709.",
        )
    begin = cut.first / cut.rate - SEEK_MARGIN
    if is_seekable(video) and begin > 0:
        # Where a stream cannot be entered in its middle, it is decoded from its beginning.
        frames = _run(source, video, cut, begin)
        try:
            first = next(frames, None)
        except InputError:
            first = None
        if first is not None:
            try:
                yield first
                yield from frames
            finally:
                frames.close()
            return
    yield from _run(source, video, cut, None)


def _run(source: Path, video: Probe, cut: Cut, seek: Fraction | None) -> Generator[Pixmap]:
    process = ffmpeg.start(
        _arguments(source, video, cut, seek),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - says to the type checker what PIPE means
    assert process.stderr is not None  # noqa: S101
    messages = ffmpeg.Messages(process.stderr)
    done = 0
    try:
        while (pixmap := _read_pixmap(process.stdout)) is not None:
            yield pixmap
            done += 1
        code = process.wait()
        check_pixels(source, ffmpeg.refused_size(messages.lines()))
        if ffmpeg.lacked_memory(code, messages.lines()):
            raise out_of_memory()
        cut_off = any(sign in line for line in messages.lines() for sign in _BROKEN)
        if done == 0 and code == 0 and cut.first:
            begin = float(cut.first / cut.rate)
            raise InputError(f"{source} shows nothing from {begin:g} s on.", "Start earlier.")
        if done == 0:
            raise InputError(f"{source} is not a video that can be read: {messages.reason()}.", FORMATS)
        if code != 0 or cut_off:
            raise InputError(
                f"{source} is damaged or cut off after {done + max(cut.skip - 1, 0)} frames.",
                "Copy or export the video again.",
            )
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        messages.lines()


def _arguments(source: Path, video: Probe, cut: Cut, seek: Fraction | None) -> list[str]:
    arguments = ["-v", "error", "-xerror"]
    if seek is not None:
        arguments += ["-copyts", "-noaccurate_seek", "-ss", f"{float(seek):.6f}"]
    if (decoder := _alpha_decoder(video)) is not None:
        arguments += ["-c:v", decoder]
    arguments += [*input_arguments(source), "-map", "0:V:0"]
    filters = [*_whole_frames(video, cut), *_choice(video, cut, seek), *_look(video, cut)]
    if filters:
        arguments += ["-vf", ",".join(filters)]
    arguments += ["-sws_flags", _EXACT]
    if cut.limit is not None:
        arguments += ["-frames:v", str(cut.limit if not cut.skip else max(cut.limit - cut.skip, 0) + 1)]
    arguments += ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm"]
    return [*arguments, "-f", "image2pipe", "pipe:1"]


def _whole_frames(video: Probe, cut: Cut) -> list[str]:
    """Filters that make whole frames of fields, which are lines of the picture as it is stored."""
    if cut.fields is None:
        return []
    back, again = _TURNS.get(video.turn, ((), ()))
    return [*back, f"bwdif=mode=send_frame:parity={cut.fields}:deint=all", *again]


def _choice(video: Probe, cut: Cut, seek: Fraction | None) -> list[str]:
    """Filters that choose frames by their time.

    Frames of a constant rate are put on its grid first: by their number, or after a seek by their time. Each
    is shown until the next one comes. Frames that come at any time go to the nearest place.
    """
    times = video.cadence
    whole = times.constant and cut.rate == times.rate
    filters = []
    if not whole or cut.first or cut.stop is not None:
        base = "STARTPTS" if seek is None or video.begin is None else f"({video.begin})/TB"
        if times.constant and seek is None:
            filters = [f"settb=1/({times.rate})", "setpts=N"]
        elif times.constant:
            filters = [f"setpts=round(PTS-{base})", f"settb=1/({times.rate})"]
        else:
            filters = [f"setpts=round(PTS-{base})", f"fps={cut.rate}:round=near:start_time=0"]
        if times.constant and not whole:
            filters.append(f"fps={cut.rate}:round=up:start_time=0")
        stop = f":end_pts={cut.stop}" if cut.stop is not None else ""
        filters.append(f"trim=start_pts={cut.first}{stop}")
    if cut.skip:
        filters.append(f"select='eq(n,0)+gte(n,{cut.skip})'")
    return filters


def _look(video: Probe, cut: Cut) -> list[str]:
    """Filters that make frames what a player shows: standard range, opaque, square pixels, not too large."""
    filters = []
    if (matrix := _assumed_matrix(video)) is not None:
        filters.append(f"setparams=colorspace={matrix}")
    if video.transfer in _HDR:
        if _converts_range():
            filters += _standard_range(video)
    elif video.alpha:
        filters += ["format=gbrap", "premultiply=inplace=1"]
    if video.aspect != 1 or cut.max_size is not None:
        width, height = "iw*max(sar,1)", "ih/min(sar,1)"
        factor = f"min(1,{cut.max_size}/max({width},{height}))" if cut.max_size is not None else "1"
        filters.append(f"scale=w='max(1,round({width}*{factor}))':h='max(1,round({height}*{factor}))'")
    return filters


def _assumed_matrix(video: Probe) -> str | None:
    """The colour matrix of a video that states none, by the custom that its height decides; else None."""
    if not video.chroma or video.matrix not in _UNTOLD or video.transfer in _HDR:
        return None
    return "bt709" if video.height >= _HIGH_DEFINITION else "smpte170m"


def _standard_range(video: Probe) -> list[str]:
    """Tone mapping to BT.709; what the file leaves open is as BT.2020 has it."""
    told = f"setparams=color_trc={video.transfer}"
    if video.matrix == "unknown":
        told += ":colorspace=bt2020nc"
    if video.primaries == "unknown":
        told += ":color_primaries=bt2020"
    return [
        told,
        "zscale=t=linear:npl=100",
        "format=gbrpf32le",
        "zscale=p=bt709",
        "tonemap=tonemap=hable:desat=0",
        "zscale=t=bt709:m=gbr:r=pc",
        "format=gbrp",
    ]


def _converts_range() -> bool:
    return {"zscale", "tonemap"} <= ffmpeg.listed("-filters")


def _alpha_decoder(video: Probe) -> str | None:
    """The decoder that reads transparency stored as a second picture, where there is one."""
    decoder = _ALPHA_DECODERS.get(video.codec) if video.hidden else None
    return decoder if decoder in ffmpeg.listed("-decoders") else None


def _read_pixmap(stream: IO[bytes]) -> Pixmap | None:
    """One `P6` image; None where the stream ends."""
    if stream.readline() != b"P6\n":
        return None
    size, depth = stream.readline().split(), stream.readline()
    if len(size) != 2 or depth != b"255\n":
        return None
    width, height = int(size[0]), int(size[1])
    data = stream.read(width * height * 3)
    return Pixmap(width, height, data) if len(data) == width * height * 3 else None
