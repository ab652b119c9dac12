"""Frames in: from a video, an image, or a folder of images, one after the other."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO

import cv2
import numpy as np

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg, stills
from musetalk_cli.types import Image

DEFAULT_FPS = Fraction(25)
"""Frames per second of sources that have no rate of their own."""

_PROBE_SECONDS = 60
_FORMATS = "MP4, MOV, MKV, WEBM and AVI work, and so do images and folders of images."
_BROKEN = ("prematurely", "partial file", "corrupt input packet")


class VideoFrames:
    """The frames of one source, once, in order.

    Iterate it, inside a `with` block where the iteration may stop early.

    Attributes:
        fps: Frames per second.
        width: Columns of every frame.
        height: Rows of every frame.
        expected: How many frames there are: exact for images, an estimate for a video, None if unknown.
    """

    def __init__(
        self, frames: Generator[Image], fps: Fraction, size: tuple[int, int], expected: int | None
    ) -> None:
        self._frames = frames
        self.fps = fps
        self.width, self.height = size
        self.expected = expected

    def __iter__(self) -> Iterator[Image]:
        """Yield uint8 `[height, width, 3]`, BGR.

        Raises:
            InputError: The source turns out damaged or cut off, or an image has another size.
        """
        return self._frames

    def close(self) -> None:
        """Release the decoder; safe to call twice."""
        self._frames.close()

    def __enter__(self) -> VideoFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def source_files(source: Path) -> list[Path]:
    """The files a source consists of: itself, or the images of the folder in their natural order.

    Raises:
        InputError: There is nothing, an empty file, or a folder without images.
    """
    if source.is_dir():
        files = stills.list_images(source)
        if not files:
            raise InputError(f"{source} holds no images.", "Pass a folder of PNG or JPEG files.")
        return files
    try:
        if not source.is_file():
            raise InputError(f"There is no video or image at {source}.", "Check the path.")
        if source.stat().st_size == 0:
            raise InputError(f"{source} is empty.", _FORMATS)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}.", "Check the path.") from error
    return [source]


def read_frames(source: Path) -> VideoFrames:
    """Open a video, an image or a folder of images; every stored frame comes once, rotated as it is shown.

    Raises:
        InputError: There is nothing there, or nothing that can be read as a picture.
    """
    files = source_files(source)
    if source.is_dir() or stills.is_image(source):
        first = stills.read_image(files[0])
        size = (first.shape[1], first.shape[0])
        return VideoFrames(_primed(_images(files, size)), DEFAULT_FPS, size, len(files))
    fps, seconds = _probe(source)
    frames = _decode(source)
    first = next(frames)
    expected = round(seconds * fps) or None
    return VideoFrames(_primed(_chain(first, frames)), fps, (first.shape[1], first.shape[0]), expected)


def _primed(frames: Generator[Image | None]) -> Generator[Image]:
    """A generator that has started, so that closing it runs its clean-up even before the first frame."""
    next(frames)
    return frames  # type: ignore[return-value]  # the only None is the one just taken


def _images(files: list[Path], size: tuple[int, int]) -> Generator[Image | None]:
    yield None
    for path in files:
        image = stills.read_image(path)
        if (image.shape[1], image.shape[0]) != size:
            raise InputError(
                f"{path} is {image.shape[1]}x{image.shape[0]}, but {files[0].name} is {size[0]}x{size[1]}.",
                "All images of a folder must have one size.",
            )
        yield image


def _chain(first: Image, rest: Generator[Image]) -> Generator[Image | None]:
    try:
        yield None
        yield first
        yield from rest
    finally:
        rest.close()


def _probe(source: Path) -> tuple[Fraction, Fraction]:
    """Frames per second and length in seconds (0 where unknown), as the container declares them."""
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-protocol_whitelist", "file,pipe"]
    command += ["-i", ffmpeg.file_url(source)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(f"{source} is not a video that can be read: it takes too long.", _FORMATS) from None
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    video = [line for line in lines if " Video: " in line and "(attached pic)" not in line]
    if not video:
        raise InputError(f"{source} is not a video that can be read.", _FORMATS)
    rate = re.search(r" (\d+(?:\.\d+)?)(k?) fps", video[0]) or re.search(
        r" (\d+(?:\.\d+)?)(k?) tbr", video[0]
    )
    fps = _exact_rate(Fraction(rate[1]) * (1000 if rate[2] else 1)) if rate else DEFAULT_FPS
    length = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", "\n".join(lines))
    seconds = (
        int(length[1]) * 3600 + int(length[2]) * 60 + Fraction(length[3])
        if length is not None
        else Fraction(0)
    )
    return fps, seconds


def _exact_rate(rounded: Fraction) -> Fraction:
    """The rate that ffmpeg rounded to two digits: 29.97 is 30000/1001."""
    if rounded <= 0:
        return DEFAULT_FPS
    film = Fraction(round(rounded * 1001 / 1000) * 1000, 1001)
    if rounded.denominator != 1 and abs(film - rounded) <= Fraction(5, 1000):
        return film
    return rounded


def _decode(source: Path) -> Generator[Image]:
    """Decode a video through one ffmpeg, as portable pixmaps: each carries its own size."""
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-v", "error", "-xerror"]
    command += ["-protocol_whitelist", "file,pipe", "-i", ffmpeg.file_url(source)]
    command += ["-map", "0:V:0", "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm"]
    command += ["-f", "image2pipe", "pipe:1"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - says to the type checker what PIPE means
    assert process.stderr is not None  # noqa: S101
    messages = ffmpeg.Messages(process.stderr)
    done = 0
    try:
        while (image := _read_pixmap(process.stdout)) is not None:
            yield image
            done += 1
        code = process.wait()
        cut_off = any(sign in line for line in messages.lines() for sign in _BROKEN)
        if done == 0:
            raise InputError(f"{source} is not a video that can be read: {messages.reason()}.", _FORMATS)
        if code != 0 or cut_off:
            raise InputError(
                f"{source} is damaged or cut off after {done} frames.", "Copy or export the video again."
            )
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        messages.lines()


def _read_pixmap(stream: IO[bytes]) -> Image | None:
    """One `P6` image as BGR; None where the stream ends."""
    if stream.readline() != b"P6\n":
        return None
    size, depth = stream.readline().split(), stream.readline()
    if len(size) != 2 or depth != b"255\n":
        return None
    width, height = int(size[0]), int(size[1])
    data = stream.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.asarray(
        cv2.cvtColor(np.frombuffer(data, np.uint8).reshape(height, width, 3), cv2.COLOR_RGB2BGR), np.uint8
    )
