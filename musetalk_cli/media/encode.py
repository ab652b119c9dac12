"""Pictures and sound out: frames and their sound through one ffmpeg with two pipes, into some container."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from musetalk_cli.errors import OutputError
from musetalk_cli.media import ffmpeg, hints, pipe_writer
from musetalk_cli.media.containers import MP4, Container
from musetalk_cli.media.even import even, to_even
from musetalk_cli.media.pipe_writer import PipeWriter
from musetalk_cli.media.sound_channels import as_stereo, coded_channels
from musetalk_cli.types import Image, Samples, StreamFormat

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""How long an ffmpeg that takes no more frames may need to say why."""
SETTLE_S = 1.0
"""How long one that was stuck may need to end by itself when its pipes are closed."""
SOUND_WAITING = 256
"""Frames whose sound may wait while ffmpeg wants pictures first."""

_EXACT = "-sws_flags accurate_rnd+full_chroma_inp+full_chroma_int"
_TO_BT709 = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
_TAGS = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
_COLOURS = f"-vf {_TO_BT709},{_TAGS} {_EXACT}".split()
_KNOWN = ("Failed to resolve hostname", *sorted(map(os.strerror, errno.errorcode), key=len, reverse=True))


class VideoEncoder:
    """Encodes frames and their sound into a container.

    Sound goes to ffmpeg through a second pipe. Both are written as they have room, so that neither can starve
    the other, and a write waits only while ffmpeg takes something at least every `pipe_writer.STALL_S`.

    Args:
        destination: A file, which is replaced if it is there; an open descriptor; or a URL for ffmpeg.
        stream: Format of frames and sound; odd sizes get their last column or row twice.
        container: What is written; without a sound codec the pictures alone.
        name: What errors call the destination; of a URL they tell no more than this.
        coded: A list for ffmpeg's `concat` of files beside it, whose pictures are taken as they are coded, in
            place of written ones; or None.

    Raises:
        MuseTalkError: ffmpeg cannot be started.
    """

    def __init__(
        self,
        destination: Path | int | str,
        stream: StreamFormat,
        container: Container = MP4,
        name: str = "The video",
        coded: Path | None = None,
    ) -> None:
        self._destination = destination
        self._streamed = container.streamed
        self._name = name
        channels, codec = coded_channels(container.sound, stream.channels)
        self._mixed = channels != stream.channels
        if self._mixed:
            log.warning("Sound of %d channels is written as stereo, for %s.", stream.channels, codec)
            stream = replace(stream, channels=channels)
        self._lock = threading.RLock()
        pictures = os.pipe() if coded is None else None
        sounds = os.pipe() if container.sound else None
        command = _pictures(stream) if coded is None else _coded(coded)
        command += _sound(stream, sounds[0]) if sounds else []
        command += ["-map", "0:v", *(["-map", "1:a"] if sounds else []), *container.options(stream).split()]
        command += _COLOURS if coded is None else []
        try:
            self._process = ffmpeg.start(
                [*command, _address(destination)],
                stdin=pictures[0] if pictures else subprocess.DEVNULL,
                stdout=destination if isinstance(destination, int) else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(sounds[0],) if sounds else (),
                cwd=None if coded is None else coded.parent,
            )
        except BaseException:
            _close(pictures, 1)
            _close(sounds, 1)
            raise
        finally:
            _close(pictures, 0)
            _close(sounds, 0)
        assert self._process.stderr is not None  # noqa: S101 - says to the type checker what PIPE means
        self._messages = ffmpeg.Messages(self._process.stderr)
        self._pictures = PipeWriter(pictures[1]) if pictures else None
        self._sounds = PipeWriter(sounds[1]) if sounds else None
        self._closed = False

    def write(self, image: Image | None, samples: Samples) -> None:
        """Add one frame, uint8 `[height, width, 3]` BGR, and its sound, float32 `[n, channels]`.

        There is no image where the pictures are coded; then any stretch of sound may be written.

        Raises:
            OutputError: ffmpeg has died, with its reason, or took nothing for `pipe_writer.STALL_S`.
        """
        samples = as_stereo(samples) if self._mixed else samples
        with self._lock:
            if self._closed:
                raise OutputError(f"{self._name} is closed.")
            if self._sounds is not None:
                self._sounds.push(memoryview(np.ascontiguousarray(samples, dtype="<f4").tobytes()))
            if image is not None and self._pictures is not None:
                self._pictures.push(np.ascontiguousarray(to_even(image)).data.cast("B"))
            self._drain({self._pictures: 0, self._sounds: SOUND_WAITING})

    def finish(self) -> None:
        """Complete what was written; nothing to do where that was done.

        Raises:
            OutputError: ffmpeg failed, with its reason, or took nothing for `pipe_writer.STALL_S`.
        """
        with self._lock:
            if self._closed:
                return
            if self._pictures is not None:
                self._pictures.close()
            self._drain({self._sounds: 0})
            self._close_pipes()
            try:
                code = self._process.wait(pipe_writer.STALL_S if self._streamed else None)
            except subprocess.TimeoutExpired:
                self._stuck()
            if code != 0:
                self._fail()
            self._messages.lines()

    def _close_pipes(self) -> None:
        self._closed = True
        for pipe in (self._pictures, self._sounds):
            if pipe is not None:
                pipe.close()

    def _drain(self, limits: dict[PipeWriter | None, int]) -> None:
        try:
            pipe_writer.drain({pipe: limit for pipe, limit in limits.items() if pipe is not None})
        except TimeoutError:
            self._stuck()
        except OSError:
            self._fail()

    def _stuck(self) -> NoReturn:
        """An ffmpeg that failed may wait for the one pipe before it says so, while we wait for the other."""
        self._close_pipes()
        with suppress(subprocess.TimeoutExpired):
            if self._process.wait(SETTLE_S) != 0:
                self._fail()
        self.abort()
        raise OutputError(
            f"{self._name} took nothing for {pipe_writer.STALL_S:g} s.",
            "Check the disk, the player or the network that it goes to.",
        )

    def _fail(self) -> NoReturn:
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            code = 0
        self.abort()
        if code < 0:
            raise OutputError(
                f"{self._name} cannot be written: ffmpeg was ended by signal {-code} "
                f"({signal.strsignal(-code)}).",
                hints.signal_hint(-code),
            )
        reason = self._messages.reason()
        if isinstance(self._destination, int) and reason.endswith(os.strerror(errno.EPIPE)):
            raise OutputError(f"The reader of {self._name} went away.", "Keep the player open.")
        if isinstance(self._destination, str):
            raise OutputError(
                f"{self._name} cannot be written: {_told_of_a_url(self._messages.lines())}.",
                "Check the server, its address and its key.",
            )
        raise OutputError(f"{self._name} cannot be written: {reason}.", hints.write_hint(reason))

    def abort(self) -> None:
        """Stop without completing; safe to call at any time, from any thread, also while another writes."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        with self._lock:
            self._close_pipes()
        self._messages.lines()


def _told_of_a_url(lines: list[str]) -> str:
    """The first reason in what ffmpeg said that is known to hold no part of a URL."""
    return next((known for line in lines for known in _KNOWN if known in line), "the server did not take it")


def _address(destination: Path | int | str) -> str:
    """The destination as ffmpeg reads it."""
    if isinstance(destination, Path):
        return ffmpeg.file_url(destination.absolute())
    return "pipe:1" if isinstance(destination, int) else destination


def _close(pipe: tuple[int, int] | None, end: int) -> None:
    if pipe is not None:
        os.close(pipe[end])


def _pictures(stream: StreamFormat) -> list[str]:
    """What ffmpeg is told of the pictures that are written to it."""
    size = f"{even(stream.width)}x{even(stream.height)}"
    form = f"-f rawvideo -pix_fmt bgr24 -s {size} -framerate {stream.fps} -i pipe:0"
    return ["-y", "-v", "error", *form.split()]


def _coded(listed: Path) -> list[str]:
    """What ffmpeg is told of pictures that are coded; it runs in the folder of the list."""
    options = "-y -v error -f concat -safe 0 -auto_convert 0"
    return [*options.split(), "-i", ffmpeg.file_url(Path(listed.name))]


def _sound(stream: StreamFormat, pipe: int) -> list[str]:
    """What ffmpeg is told of the sound.

    Older versions, like 4.2 and 7.0, take no picture before they have read so many bytes of the sound. With
    their own number, more than belongs to one picture, they would wait for us while we wait for them.
    """
    return f"-probesize 32 -f f32le -ar {stream.sample_rate} -ac {stream.channels} -i pipe:{pipe}".split()
