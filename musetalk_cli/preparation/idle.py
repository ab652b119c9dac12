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


def check_idle(idle: Path, video: VideoFrames) -> None:
    """Refuse an idle clip of another shape, or one that cannot have the same rate, before any work."""
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


def store_idle(
    idle: Path, video: VideoFrames, folder: Path, progress: Callable[[int, int | None], None]
) -> int:
    """Store the idle clip.

    Args:
        idle: The clip.
        video: The source of the avatar, whose rate and size it is brought to.
        folder: Folder of the avatar.
        progress: Told the frames that are done, and how many there are.

    Returns:
        Its number of frames.
    """
    (folder / IDLE_DIR).mkdir(exist_ok=True)
    count = 0
    with read_frames(idle) as clip:
        same = clip.fps == video.fps
    with read_frames(idle, Selection(fps=None if same else video.fps)) as clip:
        for frame in clip:
            picture = frame
            if frame.shape[:2] != (video.height, video.width):
                picture = cv2.resize(frame, (video.width, video.height), interpolation=cv2.INTER_AREA)
            write_png(folder / IDLE_DIR / image_name(count), picture)
            count += 1
            progress(count, clip.expected)
    return count
