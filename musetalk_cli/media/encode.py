"""H.264 and AAC out: frames and their sound through one ffmpeg with two pipes."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from pathlib import Path

import numpy as np

from musetalk_cli.errors import OutputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.types import Image, Samples, StreamFormat

GRACE_S = 5.0
"""How long an ffmpeg that takes no more frames may need to say why."""


class VideoEncoder:
    """Writes an MP4 of H.264 and AAC.

    Sound goes to ffmpeg through a second pipe, fed by a thread, so that neither pipe can starve the other.

    Args:
        path: File to write; replaced if it is there.
        stream: Format of frames and sound; odd sizes get their last column or row twice.
        crf: Constant rate factor of libx264; smaller is better and larger.
        preset: Speed preset of libx264.

    Raises:
        MuseTalkError: ffmpeg cannot be started.
    """

    def __init__(self, path: Path, stream: StreamFormat, crf: int = 18, preset: str = "veryfast") -> None:
        odd = stream.height % 2, stream.width % 2
        self._border = ((0, odd[0]), (0, odd[1]), (0, 0)) if any(odd) else None
        read_end, write_end = os.pipe()
        command = [*_options(stream, read_end, preset, crf).split(), ffmpeg.file_url(path)]
        try:
            self._process = ffmpeg.start(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(read_end,),
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        assert self._process.stdin is not None  # noqa: S101 - says to the type checker what PIPE means
        assert self._process.stderr is not None  # noqa: S101
        self._video = self._process.stdin
        self._messages = ffmpeg.Messages(self._process.stderr)
        self._sound: queue.Queue[bytes | None] = queue.Queue(maxsize=256)
        self._audio_thread = threading.Thread(
            target=self._write_sound, args=(write_end,), name="sound", daemon=True
        )
        self._audio_thread.start()

    def _write_sound(self, descriptor: int) -> None:
        """Feed the second pipe; once ffmpeg is gone, keep taking so that no writer waits for ever."""
        with os.fdopen(descriptor, "wb", buffering=0) as pipe:
            broken = False
            while (data := self._sound.get()) is not None:
                rest = memoryview(b"" if broken else data)
                try:
                    while rest:
                        rest = rest[pipe.write(rest) :]
                except OSError:
                    broken = True

    def write(self, image: Image, samples: Samples) -> None:
        """Add one frame, uint8 `[height, width, 3]` BGR, and its sound, float32 `[n, channels]`.

        Raises:
            OutputError: ffmpeg has died; its reason is in the message.
        """
        self._sound.put(np.ascontiguousarray(samples, dtype="<f4").tobytes())
        if self._border is not None:
            image = np.pad(image, self._border, mode="edge")
        try:
            self._video.write(np.ascontiguousarray(image).data.cast("B"))
        except OSError:
            self._fail()

    def finish(self) -> None:
        """Complete the file.

        Raises:
            OutputError: ffmpeg failed; its reason is in the message.
        """
        self._sound.put(None)
        try:
            self._video.close()
        except OSError:
            self._fail()
        self._audio_thread.join()
        if self._process.wait() != 0:
            self._fail()
        self._messages.lines()

    def _fail(self) -> None:
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            code = 0
        self.abort()
        if code < 0:
            raise OutputError(
                f"The video cannot be written: ffmpeg was ended by signal {-code}.",
                "Check the free space of the disk, and the free memory.",
            )
        reason = self._messages.reason()
        raise OutputError(f"The video cannot be written: {reason}.", "Check the free space of the disk.")

    def abort(self) -> None:
        """Stop without completing the file; safe to call at any time."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._video.close()
        if self._audio_thread.is_alive():
            self._sound.put(None)
            self._audio_thread.join()


def _options(stream: StreamFormat, sound: int, preset: str, crf: int) -> str:
    """What ffmpeg is told, without the path: none of it can hold a space."""
    size = f"{stream.width + stream.width % 2}x{stream.height + stream.height % 2}"
    to_bt709 = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
    tags = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    return (
        f"-y -v error -f rawvideo -pix_fmt bgr24 -s {size} -framerate {stream.fps} -i pipe:0 "
        f"-f f32le -ar {stream.sample_rate} -ac {stream.channels} -i pipe:{sound} -map 0:v -map 1:a "
        f"-vf {to_bt709},{tags} -c:v libx264 -preset {preset} -crf {crf} "
        "-c:a aac -b:a 192k -movflags +faststart -f mp4"
    )
