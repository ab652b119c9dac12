"""What a frame shows, from the source frame, the face made for it, and the idle picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from musetalk_cli.timeline import Timeline, mirrored
from musetalk_cli.types import Clip, Fate, FrameRequest, Image

if TYPE_CHECKING:
    from musetalk_cli.avatar.data import Avatar


class Pictures:
    """The pictures of one stream.

    Args:
        avatar: Who speaks.
        timeline: Index arithmetic at the stream's frame rate.
        clip: Pictures shown in silence, each of the avatar's size; None is the avatar's own frames.
    """

    def __init__(self, avatar: Avatar, timeline: Timeline, clip: Clip | None) -> None:
        self._avatar = avatar
        self._timeline = timeline
        self._clip = clip

    def idle(self, request: FrameRequest) -> Image:
        """The idle picture at a frame's place, as a read-only view of a shared one."""
        picture = self._avatar.frames[request.source]
        if self._clip is not None:
            shown = self._timeline.source_frame(request.index, self._clip.fps)
            picture = self._clip.pictures[mirrored(shown, len(self._clip.pictures))]
        view: Image = picture.view()
        view.flags.writeable = False
        return view

    def show(
        self, request: FrameRequest, fate: Fate, patch: Image | None, idle: Image, before: Image | None
    ) -> Image:
        """What a frame shows: idle and source frames as shared, read-only pictures, made ones as new ones.

        Args:
            request: The frame.
            fate: What became of it.
            patch: The face made for it, uint8, of its patch's size; None where there is none.
            idle: The idle picture at its place.
            before: The picture before it; None where there is none.
        """
        if fate is Fate.HELD:
            return idle if before is None else before
        own_idle = self._clip is None
        shows_source = fate in {Fate.PASS_THROUGH, Fate.BROKEN}
        if not fate.is_made and (own_idle or not shows_source):
            return idle
        image: Image = self._avatar.frames[request.source].copy()
        changed = slice(None), slice(None)
        place = self._avatar.patches[request.source]
        if patch is not None and place is not None:
            image[place.box.slices()] = patch
            changed = place.box.slices() if own_idle else changed
        if request.weight < 1:
            part = image[changed]
            image[changed] = cv2.addWeighted(part, request.weight, idle[changed], 1 - request.weight, 0)
        return image
