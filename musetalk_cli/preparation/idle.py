"""The idle clip of an avatar: frames that are shown in silence, at its rate and size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2

from musetalk_cli.avatar.layout import IDLE_DIR, image_name
from musetalk_cli.errors import InputError
from musetalk_cli.media.stills import write_png
from musetalk_cli.media.video import Selection, VideoFrames, read_frames
from musetalk_cli.timeline import FPS_RANGE

_ASPECT = 0.01


def check_idle(idle: Path, video: VideoFrames) -> Selection:
    """Refuse an idle clip of another shape, or one that cannot have the same rate, before any work.

    Returns:
        What of the clip is stored, at the rate of the avatar's source.
    """
    with read_frames(idle) as clip:
        if clip.fps != video.fps and not FPS_RANGE[0] <= video.fps <= FPS_RANGE[1]:
            raise InputError(
                f"The idle clip {idle} has {float(clip.fps):g} frames per second, the source "
                f"{float(video.fps):g}.",
                "Bring both to one rate with --fps.",
            )
        if abs(clip.width * video.height / (clip.height * video.width) - 1) > _ASPECT:
            raise InputError(
                f"The idle clip {idle} is {clip.width}x{clip.height}, but the frames are "
                f"{video.width}x{video.height}.",
                "Pass a clip of the same shape.",
            )
        return Selection(fps=None if clip.fps == video.fps else video.fps)


def store_idle(
    idle: Path,
    selection: Selection,
    size: tuple[int, int],
    folder: Path,
    progress: Callable[[int, int | None], None],
) -> tuple[int, list[str]]:
    """Store the idle clip.

    Args:
        idle: The clip.
        selection: What of it, as `check_idle` gave it.
        size: Width and height its frames are brought to.
        folder: Folder of the avatar.
        progress: Told the frames that are done, and how many there are.

    Returns:
        Its number of frames, and sentences on what was done to it.
    """
    (folder / IDLE_DIR).mkdir(exist_ok=True)
    count = 0
    with read_frames(idle, selection) as clip:
        for frame in clip:
            picture = frame
            if (clip.width, clip.height) != size:
                picture = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            write_png(folder / IDLE_DIR / image_name(count), picture)
            count += 1
            progress(count, clip.expected)
        return count, [f"Idle clip: {note}" for note in clip.notes]
