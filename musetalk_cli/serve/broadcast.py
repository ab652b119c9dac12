"""One session's frames for all that watch it: each form is encoded once, and only while it is wanted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from musetalk_cli.clock import Clock
from musetalk_cli.errors import describe
from musetalk_cli.serve.encoders import SOUND_CLOCK, H264Encoder, OpusEncoder, Packet, jpeg
from musetalk_cli.timeline import ceil_div
from musetalk_cli.types import Frame, StreamFormat

log = logging.getLogger(__name__)

KEPT_S = 5.0
"""How long the encoder of pictures stays when nobody wants it: a viewer who reloads the page comes back."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What a viewer wants of a session.

    Attributes:
        video: The form of the pictures.
        sound: The form of the sound; `pcm` is the frame's own, which costs nothing.
    """

    video: Literal["h264", "jpeg", "none"] = "h264"
    sound: Literal["opus", "pcm", "none"] = "opus"


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """One frame as viewers get it, the same for all that want the same.

    Attributes:
        frame: The frame; its sound as PCM is `frame.request.audio`.
        picture: An Annex B access unit or a JPEG; empty where none is wanted, or the frame is passed over.
        key: It can be decoded without those before it.
        sound: Opus packets that are complete with this frame; none where none is wanted.
    """

    frame: Frame
    picture: bytes
    key: bool
    sound: tuple[Packet, ...]


class Viewer(Protocol):
    """Who watches. Both methods come one after the other, mostly in the session's sink thread; neither waits.

    Attributes:
        wants: What it gets; it does not change.
    """

    wants: Wants

    def show(self, unit: Unit) -> None:
        """Take the next frame."""

    def end(self) -> None:
        """The session is over: nothing more is shown."""


class Broadcast:
    """The sink of a session that is watched by any number of viewers, also by none.

    Args:
        clock: Where time comes from.
        hardware: Let the GPU encode H.264 where it can.
        name: What messages and reports call it.

    Attributes:
        name: What messages and reports call it.
        watched: True: somebody watches as the frames come.
        on_shown: Told of every frame, after the viewers; None where nobody asks.
    """

    def __init__(self, clock: Clock, *, hardware: bool = False, name: str = "viewers") -> None:
        self.name = name
        self.watched = True
        self.on_shown: Callable[[Frame], None] | None = None
        self._forms: _Forms | None = None
        self._clock = clock
        self._hardware = hardware
        # who watches, and whether a picture that stands alone is waited for
        self._viewers: dict[Viewer, bool] = {}
        self._ended = False
        self._lock = threading.Lock()
        # held while viewers are called, so that nothing is shown after the end
        self._calling = threading.Lock()

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def join(self, viewer: Viewer) -> None:
        """Show a viewer every frame from the next on; its first H.264 is an IDR. From any thread.

        One that joins when the session is over is told so at once.
        """
        with self._lock:
            if not self._ended:
                self._viewers[viewer] = viewer.wants.video == "h264"
                return
        _call(viewer.end)

    def leave(self, viewer: Viewer) -> None:
        """Show a viewer nothing more, but for a frame that is on its way to it; from any thread."""
        with self._lock:
            self._viewers.pop(viewer, None)

    def open(self, stream: StreamFormat) -> None:
        """Get to know the format; what encodes is made when it is wanted."""
        self._forms = _Forms(stream, self._clock, hardware=self._hardware)

    def write(self, frame: Frame) -> None:
        """Show a frame to every viewer.

        Raises:
            OutputError: The picture cannot be encoded.
        """
        forms = self._forms
        if forms is None:
            return
        with self._lock:
            waiting = dict(self._viewers)
        units = forms.units({viewer.wants for viewer in waiting}, frame, key=any(waiting.values()))
        with self._calling:
            for viewer, waits in waiting.items():
                unit = units[viewer.wants]
                if viewer in self._viewers and (unit.key or not waits):
                    self._show(viewer, unit)
        if self.on_shown is not None:
            self.on_shown(frame)

    def _show(self, viewer: Viewer, unit: Unit) -> None:
        if not _call(viewer.show, unit):
            self.leave(viewer)
            return
        with self._lock:
            if viewer in self._viewers:
                self._viewers[viewer] = False

    def finish(self) -> None:
        """Tell every viewer that the session is over."""
        with self._lock:
            self._ended = True
            viewers = list(self._viewers)
            self._viewers.clear()
        with self._calling:
            for viewer in viewers:
                _call(viewer.end)
        self._forms = None

    def abort(self) -> None:
        """The same: what was shown is shown."""
        self.finish()


def _call(method: Callable[..., None], *arguments: object) -> bool:
    """Call a viewer; False where it failed, which concerns nobody else."""
    try:
        method(*arguments)
    except Exception as error:
        log.warning("A viewer failed and gets nothing more: %s", describe(error))
        return False
    return True


class _Forms:
    """What encodes one stream, each made when it is first wanted.

    Args:
        stream: Format of the frames.
        clock: Where time comes from.
        hardware: Let the GPU encode H.264 where it can.
    """

    def __init__(self, stream: StreamFormat, clock: Clock, *, hardware: bool) -> None:
        self._stream = stream
        self._clock = clock
        self._hardware = hardware
        self._h264: H264Encoder | None = None
        self._h264_wanted = 0.0
        self._opus: OpusEncoder | None = None

    def units(self, wanted: set[Wants], frame: Frame, *, key: bool) -> dict[Wants, Unit]:
        """A frame for each of what is wanted.

        One that is passed over has no picture: none would see it, and the utterance behind would wait for it.

        Args:
            wanted: What viewers want.
            frame: The frame.
            key: Its H.264 must be an IDR.

        Raises:
            OutputError: The picture cannot be encoded.
        """
        pictures: dict[str, tuple[bytes, bool]] = {"none": (b"", True)}
        videos = {wants.video for wants in wanted}
        if frame.passed_over:
            pictures |= {"jpeg": (b"", True), "h264": (b"", False)}
        else:
            if "jpeg" in videos:
                pictures["jpeg"] = jpeg(frame.image), True
            pictures["h264"] = self._as_h264(frame, key=key) if "h264" in videos else self._no_h264()
        opus = self._as_opus(frame) if any(wants.sound == "opus" for wants in wanted) else self._no_opus()
        sounds: dict[str, tuple[Packet, ...]] = {"none": (), "pcm": (), "opus": opus}
        return {wants: Unit(frame, *pictures[wants.video], sounds[wants.sound]) for wants in wanted}

    def _as_h264(self, frame: Frame, *, key: bool) -> tuple[bytes, bool]:
        if self._h264 is None:
            self._h264 = H264Encoder(self._stream, hardware=self._hardware)
        self._h264_wanted = self._clock.now()
        return self._h264.encode(frame.image, frame.pts, key=key)

    def _no_h264(self) -> tuple[bytes, bool]:
        if self._h264 is not None and self._clock.now() - self._h264_wanted > KEPT_S:
            self._h264 = None
        return b"", False

    def _as_opus(self, frame: Frame) -> tuple[Packet, ...]:
        if self._opus is None:
            self._opus = OpusEncoder(
                self._stream.sample_rate, self._stream.channels, _start(frame.pts, self._stream.sample_rate)
            )
        return self._opus.encode(frame.request.audio)

    def _no_opus(self) -> tuple[Packet, ...]:
        # one that has missed sound would give what follows at the wrong time
        self._opus = None
        return ()


def _start(pts: Fraction, sample_rate: int) -> int:
    """Samples at 48 kHz from the start of a stream to the first sample of the frame that begins at `pts`."""
    return round(Fraction(ceil_div(pts * sample_rate, 1) * SOUND_CLOCK, sample_rate))
