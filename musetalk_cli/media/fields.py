"""Interlace detection: a comb shows where the lines of a frame come from two moments."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musetalk_cli.media import ffmpeg
from musetalk_cli.media.probe import Probe, input_arguments, is_seekable

_COLUMNS = 160
_LONG = Fraction(12)
_FRAMES, _STRETCHES, _STRETCH = 120, 3, 48
_SECONDS = 60
_FEWEST_PIXELS = 200
_FEWEST_FRAMES = 3

_Lines = NDArray[np.int16]


class _Vote(NamedTuple):
    """What a frame is, `tff`, `bff` or `whole`, and whether its combs can be seen."""

    what: str
    combed: bool


def seen_field_order(source: Path, video: Probe, start: Fraction, length: Fraction) -> str | None:
    """Look for combs in a bounded number of the frames of a part of a video.

    Args:
        source: The video.
        video: What is known about it.
        start: Seconds at which the part begins.
        length: Seconds that it lasts.

    Returns:
        `tff` or `bff`, which names the field that comes first; None where the frames are whole, or too still.
    """
    if video.height < 8 or not video.width:
        return None
    long = length > _LONG and is_seekable(video)
    begins = [start + length * number / _STRETCHES for number in range(_STRETCHES)] if long else [start]
    votes = {"tff": 0, "bff": 0, "whole": 0}
    combed = 0
    for begin in begins:
        frames = _frames(
            source, video, begin if is_seekable(video) else Fraction(0), _STRETCH if long else _FRAMES
        )
        for number in range(1, len(frames) - 1):
            if (vote := _judge(*frames[number - 1 : number + 2])) is not None:
                votes[vote.what] += 1
                combed += vote.combed
    order = max("tff", "bff", key=votes.__getitem__)
    enough = max(sum(votes.values()) / 10, 4 * (votes["tff"] + votes["bff"] - votes[order]))
    return order if combed >= _FEWEST_FRAMES and votes[order] >= enough else None


def _frames(source: Path, video: Probe, begin: Fraction, count: int) -> _Lines:
    """Frames as stored, as int16 luma `[n, height, columns]`; means of columns have less noise."""
    size = min(_COLUMNS, video.width), video.height
    arguments = ["-v", "error", *(["-ss", f"{float(begin):.3f}"] if begin else []), "-noautorotate"]
    arguments += [
        *input_arguments(source),
        "-map",
        "0:V:0",
        "-frames:v",
        str(count),
        "-fps_mode",
        "passthrough",
    ]
    arguments += ["-vf", f"scale={size[0]}:{size[1]}:flags=area,format=gray", "-f", "rawvideo", "pipe:1"]
    process = ffmpeg.start(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    data = b""
    with suppress(subprocess.TimeoutExpired):
        data = process.communicate(timeout=_SECONDS)[0]
    if process.poll() is None:
        process.kill()
        process.communicate()
    whole = len(data) // (size[0] * size[1]) * size[0] * size[1]
    return np.frombuffer(data[:whole], np.uint8).reshape(-1, size[1], size[0]).astype(np.int16)


def _judge(before: _Lines, frame: _Lines, after: _Lines) -> _Vote | None:
    """What the moving parts of a frame say; None where they say nothing.

    The even lines of a frame are put between its odd lines, and those of its neighbours are. A whole frame
    fits itself best and both neighbours equally ill. The fields of an interlaced one are half a frame apart,
    so that one neighbour's line fits as well as its own, and the other's is three times as far away.
    """
    back, forth = np.abs(frame - before), np.abs(after - frame)
    moved = np.maximum(back, forth)
    mask = (moved > 4 * np.median(moved) + 4)[1:-1]
    if mask.sum() < _FEWEST_PIXELS:
        return None
    slower, faster = sorted((int(back[1:-1][mask].sum()), int(forth[1:-1][mask].sum())))
    if slower < 0.7 * faster:  # unequal steps, and frames shown twice, look like fields
        return None
    own, earlier, later = (_comb(even, frame, mask) for even in (frame, before, after))
    near, far = min(earlier, later), max(earlier, later)
    if far - own < 0.15 * own:
        return None
    apart = (near - own) / (far - own)
    if apart > 0.6:
        return _Vote("whole", False)
    if apart >= 0.35:
        return None
    return _Vote("tff" if earlier > later else "bff", own > 0.75 * _detail(frame, mask))


def _detail(frame: _Lines, mask: NDArray[np.bool_]) -> int:
    """As `_comb`, of the lines of each field alone: lines twice as far from each other are less alike."""
    inner = mask.copy()
    inner[[0, -1]] = False
    return int(np.abs(frame[:-4] + frame[4:] - 2 * frame[2:-2])[inner[1:-1]].sum())


def _comb(even: _Lines, odd: _Lines, mask: NDArray[np.bool_]) -> int:
    """How much each line differs from the mean of its neighbours, with the lines of two frames woven."""
    woven = even.copy()
    woven[1::2] = odd[1::2]
    return int(np.abs(woven[:-2] + woven[2:] - 2 * woven[1:-1])[mask].sum())
