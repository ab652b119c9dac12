"""What a video file says about itself, and the time stamps of its packets, without decoding it."""

from __future__ import annotations

import re
import subprocess
import threading
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.cadence import Cadence, cadence, exact_rate
from musetalk_cli.media.stills import MAX_PIXELS, check_pixels
from musetalk_cli.timeline import DEFAULT_FPS

FORMATS = "MP4, MOV, MKV, WEBM, AVI and GIF work, and so do images and folders of images."

_PROBE_SECONDS = 60
_MAX_STAMPS = 4_000_000
_MESSAGES = 4000
_MAX_TAIL = Fraction(10)
_NO_TIME = -(1 << 63)
_DISCARD = 4
_ANIMATIONS = {".png": "apng", ".webp": "webp_anim"}
_PART = re.compile(r"(?:[^,(\[]|\([^)]*\)|\[[^\]]*\])+")
_ALPHA = re.compile(r"yuva|gbrap|rgba|bgra|argb|abgr|ya8|ya16|ayuv|vuya")
_SEEKABLE = ("mp4", "matroska")
_INTERLACED = re.compile(r"(top|bottom) (coded )?first")
_LUMA_CHROMA = re.compile(r"yuv|ayuv|vuy|uyv|uyyv|yvyu|nv\d|p[024]\d\d|y2\d\d|xv\d\d")


@dataclass(frozen=True, slots=True)
class Probe:
    """One video stream.

    Attributes:
        container: Names of the container format, with commas between them.
        codec: Name of the codec.
        alpha: True where frames carry transparency, `hidden` or not.
        hidden: True where the transparency is a second picture, which not every decoder reads.
        chroma: True where pixels are stored as luma and colour differences, which a matrix makes colours of.
        matrix: That colour matrix, or `unknown`; `primaries` and `transfer` likewise.
        primaries: The primary colours.
        transfer: The transfer curve.
        interlaced: True where the video says so. Which field comes first its frames tell; containers err.
        turn: Degrees by which a player turns the picture to the right.
        width: Columns as stored, before rotation; 0 where unknown.
        height: Rows as stored, before rotation; 0 where unknown.
        aspect: Width of a pixel divided by its height.
        cadence: At which rate frames come; constant where nothing is known.
        count: Frames to be shown, as far as packets tell; None where unknown.
        begin: Time stamp of the first frame shown, in seconds; None where packets have none.
        seconds: Length of the video; 0 where unknown.
    """

    container: str
    codec: str
    alpha: bool
    hidden: bool
    chroma: bool
    matrix: str
    primaries: str
    transfer: str
    interlaced: bool
    turn: int
    width: int
    height: int
    aspect: Fraction
    cadence: Cadence
    count: int | None
    begin: Fraction | None
    seconds: Fraction


@dataclass(slots=True)
class _Packets:
    """The packets of a stream: `stamps` in ticks of `tick` seconds, None where some have none."""

    tick: Fraction
    count: int
    stamps: array[int] | None
    latest: int
    last_duration: int


def input_arguments(source: Path) -> list[str]:
    """How ffmpeg is told to read a file, and nothing that the file may refer to elsewhere."""
    # An animation with such a name, or with a number's place in it, would else be taken for stills.
    form = _ANIMATIONS.get(source.suffix.lower())
    named = ["-f", form] if form else []
    bounds = ["-protocol_whitelist", "file,pipe", *ffmpeg.pixel_bound(MAX_PIXELS)]
    return [*bounds, *named, "-i", ffmpeg.file_url(source)]


def probe(source: Path) -> Probe:
    """Read a file through once.

    Raises:
        InputError: It is no video, holds only sound, or has frames with more than `MAX_PIXELS`.
    """
    arguments = ["-copyts", *input_arguments(source), "-map", "0:V:0"]
    arguments += ["-c", "copy", "-f", "framecrc", "pipe:1"]
    process = ffmpeg.start(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - says to the type checker what PIPE means
    assert process.stderr is not None  # noqa: S101
    messages = ffmpeg.Messages(process.stderr, _MESSAGES)
    guard = threading.Timer(_PROBE_SECONDS, process.kill)
    guard.daemon = True
    guard.start()
    try:
        packets = _read_packets(process.stdout, guard)
        slow = process.wait() < 0 and packets.count == 0
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        lines = messages.lines()
    if slow:
        raise InputError(f"{source} is not a video that can be read: it takes too long.", FORMATS)
    check_pixels(source, ffmpeg.refused_size(lines))
    video = _described(source, lines, packets)
    check_pixels(source, (video.width, video.height))
    return video


def _read_packets(stream: IO[bytes], guard: threading.Timer) -> _Packets:
    """Read what the `framecrc` format prints: `stream, dts, pts, duration, size, sum[, F=flags]`."""
    packets = _Packets(Fraction(0), 0, array("q"), _NO_TIME, 0)
    for line in stream:
        guard.cancel()
        if line.startswith(b"#tb 0:"):
            packets.tick = Fraction(line.split(b":")[1].strip().decode("ascii"))
        fields = line.split(b",")
        if line.startswith(b"#") or len(fields) < 6:
            continue
        flags = re.search(rb"F=0x([0-9A-Fa-f]+)", line)
        if flags is not None and int(flags[1], 16) & _DISCARD:
            continue
        packets.count += 1
        stamp = int(fields[2])
        if stamp == _NO_TIME or packets.count > _MAX_STAMPS:
            packets.stamps = None
        elif packets.stamps is not None:
            packets.stamps.append(stamp)
        if stamp >= packets.latest:
            packets.latest, packets.last_duration = stamp, int(fields[3])
    return packets


def _described(source: Path, lines: list[str], packets: _Packets) -> Probe:
    streams = [number for number, line in enumerate(lines) if re.match(r"\s*Stream #0:\d", line)]
    shown = [number for number in streams if _is_video(lines[number])]
    if not shown:
        if any(" Audio: " in lines[number] for number in streams):
            raise InputError(f"{source} holds sound but no video.", FORMATS)
        raise InputError(f"{source} is not a video that can be read.", FORMATS)
    after = next((number for number in streams if number > shown[0]), len(lines))
    text = lines[shown[0]].partition(" Video: ")[2]
    parts = [part.strip() for part in _PART.findall(text)] + ["", ""]
    layout = re.match(r"(\w*)(?:\(([^)]*)\))?", parts[1])
    told = layout[2] if layout and layout[2] else ""
    colours = _colours(told)
    size = re.search(r", (\d+)x(\d+)", text)
    aspect = re.search(r"\bSAR (\d+):(\d+)", text)
    hidden = any(re.match(r"(?i)\s*alpha_mode\s*:\s*1", line) for line in lines[shown[0] + 1 : after])
    declared = _declared_rate(text)
    times, begin = _times(packets, declared)
    seconds = packets.count / times.rate
    if not times.constant and begin is not None:
        tail = min(packets.last_duration * packets.tick, _MAX_TAIL)
        seconds = packets.latest * packets.tick + (tail if tail > 0 else 1 / times.rate) - begin
    container = re.search(r"Input #0, (.*?), from ", "\n".join(lines))
    return Probe(
        container=container[1] if container else "",
        codec=re.split(r"\W", text, maxsplit=1)[0],
        alpha=hidden or bool(layout and _ALPHA.match(layout[1])),
        hidden=hidden,
        chroma=bool(layout and _LUMA_CHROMA.match(layout[1])),
        matrix=colours[0],
        primaries=colours[1],
        transfer=colours[2],
        interlaced=_INTERLACED.search(told) is not None,
        turn=_turn(lines[shown[0] + 1 : after]),
        width=int(size[1]) if size else 0,
        height=int(size[2]) if size else 0,
        aspect=Fraction(int(aspect[1]), int(aspect[2])) if aspect and aspect[2] != "0" else Fraction(1),
        cadence=times,
        count=packets.count or None,
        begin=begin,
        seconds=seconds or _declared_seconds(lines),
    )


def is_seekable(video: Probe) -> bool:
    """True where a container can be entered in its middle."""
    return video.begin is not None and any(name in video.container.split(",") for name in _SEEKABLE)


def _turn(lines: list[str]) -> int:
    found = re.search(r"(?im)^\s*display ?matrix: rotation of (-?\d+)", "\n".join(lines))
    return -int(found[1]) % 360 if found else 0


def _is_video(line: str) -> bool:
    """True for a moving picture, which the cover of an album is not."""
    return " Video: " in line and "(attached pic)" not in line


def _colours(text: str) -> tuple[str, str, str]:
    """Matrix, primaries and transfer from `tv, bt2020nc/bt2020/smpte2084, progressive` or `tv, bt709`."""
    for part in text.split(", "):
        names = part.split("/")
        if len(names) == 3:
            return names[0], names[1], names[2]
        if re.match(r"bt\d|smpte|arib|film|gbr|ictcp", part):
            return part, part, part
    return "unknown", "unknown", "unknown"


def _times(packets: _Packets, declared: Fraction | None) -> tuple[Cadence, Fraction | None]:
    """The cadence, and the first time stamp in seconds, or None where there are none."""
    if packets.stamps is None or not packets.stamps or packets.tick <= 0:
        rate = declared or DEFAULT_FPS
        return Cadence(rate, True, rate, rate), None
    stamps = np.unique(np.frombuffer(packets.stamps, np.int64))
    return cadence(stamps, packets.tick, declared), int(stamps[0]) * packets.tick


def _declared_rate(text: str) -> Fraction | None:
    rate = re.search(r" (\d+(?:\.\d+)?)(k?) fps", text) or re.search(r" (\d+(?:\.\d+)?)(k?) tbr", text)
    value = Fraction(rate[1]) * (1000 if rate[2] else 1) if rate else Fraction(0)
    return exact_rate(value) if 0 < value <= 1000 else None


def _declared_seconds(lines: list[str]) -> Fraction:
    length = ffmpeg.declared_length("\n".join(lines))
    return Fraction(0) if length is None else length[0]
