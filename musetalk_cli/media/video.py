"""Frames in: from a video, an image, or a folder of images, one after the other."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from musetalk_cli.errors import InputError
from musetalk_cli.media import decode, stills
from musetalk_cli.media.fields import seen_field_order
from musetalk_cli.media.pixels import shrink
from musetalk_cli.media.probe import FORMATS, Probe, probe
from musetalk_cli.media.selection import EVERYTHING, Selection
from musetalk_cli.timeline import DEFAULT_FPS
from musetalk_cli.types import Image

__all__ = ["Selection", "VideoFrames", "read_frames", "source_files"]


class VideoFrames:
    """The frames of one source, once, in order.

    Iterate it, inside a `with` block where the iteration may stop early.

    Attributes:
        fps: Frames per second.
        width: Columns of every frame.
        height: Rows of every frame.
        expected: How many frames are selected: exact for images, nearly always for a video, None if unknown.
            It counts frames that are skipped.
        notes: Sentences on what was done to the source.
    """

    def __init__(
        self,
        frames: Generator[Image],
        fps: Fraction,
        size: tuple[int, int],
        expected: int | None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self._frames = frames
        self.fps = fps
        self.width, self.height = size
        self.expected = expected
        self.notes = notes

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
            raise InputError(f"{source} is empty.", FORMATS)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}.", "Check the path.") from error
    return [source]


def read_frames(source: Path, selection: Selection = EVERYTHING, *, skip: int = 0) -> VideoFrames:
    """Open a video, an image or a folder of images.

    Frames come as players show them: upright, with square pixels, opaque over black, in the standard range.
    A constant frame rate gives every stored frame once, a varying one is resampled. Images are a clip of
    `DEFAULT_FPS`; one alone is one frame at any rate.

    Args:
        source: The video, image or folder.
        selection: Which of its frames are taken.
        skip: Leave out so many of these; the others are the same to the bit.

    Raises:
        InputError: There is nothing there, nothing that can be read as a picture, or nothing left to take.
    """
    files = source_files(source)
    if source.is_dir() or stills.is_still(source):
        return _open_images(source, files, selection, skip)
    return _open_video(source, selection, skip)


def _open_images(source: Path, files: list[Path], selection: Selection, skip: int) -> VideoFrames:
    rate = selection.fps or DEFAULT_FPS
    step = DEFAULT_FPS / rate
    total = math.ceil(len(files) / step) if len(files) > 1 else 1
    _check_start(source, selection, len(files) / DEFAULT_FPS)
    start, stop = selection.numbers(rate, total)
    count = min((stop or 0) - start, selection.max_frames or total)
    first = stills.read_image(files[0])
    size = (first.shape[1], first.shape[0])
    chosen = [files[min(int(number * step), len(files) - 1)] for number in range(start, start + count)]
    target = _fitting(size, selection.max_size)
    notes = []
    if selection.fps is not None and step != 1 and len(files) > 1:
        notes.append(f"{_rates(DEFAULT_FPS, rate)}.")
    if any(stills.has_alpha(path) for path in dict.fromkeys(chosen)):
        notes.append("Transparent parts, where there are any, were put on black.")
    notes += _profile_notes(chosen)
    if target != size:
        notes.append(_scaled(size, target))
    frames = _images(chosen[skip:], files[0], size, target)
    return VideoFrames(_primed(frames), rate, target, count, tuple(notes))


def _profile_notes(files: list[Path]) -> list[str]:
    """What is done about the colour profiles of images."""
    found = {profile for path in dict.fromkeys(files) if (profile := stills.colour_profile(path)) is not None}
    used = sorted({profile.name for profile in found if profile.takes})
    left = sorted({profile.name for profile in found if not profile.takes})
    notes = [f"Colours were converted to sRGB from the profile {', '.join(used)}."] if used else []
    if left:
        notes.append(f"The colour profile {', '.join(left)} cannot be used: colours were left as they are.")
    return notes


def _open_video(source: Path, selection: Selection, skip: int) -> VideoFrames:
    video = probe(source)
    times = video.cadence
    rate = selection.fps or times.rate
    total = _frames_at(video, rate)
    _check_start(source, selection, video.seconds)
    start, stop = selection.numbers(rate, total)
    expected = None if stop is None else min(stop - start, selection.max_frames or stop)
    # How long ffmpeg shows the last frame of a varying rate is a guess, so `stop` ends it; frames of a
    # constant rate come even where packets promised fewer.
    end = None if times.constant and selection.duration is None else stop
    length = video.seconds - selection.start
    length = min(length, selection.duration) if selection.duration is not None else length
    seen = seen_field_order(source, video, selection.start, length)
    fields = seen or ("auto" if video.interlaced else None)
    cut = decode.Cut(rate, start, end, selection.max_frames, skip, selection.max_size, fields)
    pixmaps = decode.decode(source, video, cut)
    first = next(pixmaps)
    size = (first.width, first.height)
    notes = [*_rate_notes(video, selection, rate), *decode.treatment(video)]
    if fields is not None:
        told = "as it says" if video.interlaced else "as its frames show, though it does not say so"
        notes.append(f"The video is interlaced, {told}: deinterlaced, at the same frame rate.")
    if selection.max_size is not None and max(shown := _shown_size(video, size)) > selection.max_size:
        notes.append(_scaled(shown, size))
    return VideoFrames(_primed(_converted(first, pixmaps, skip)), rate, size, expected, tuple(notes))


def _frames_at(video: Probe, rate: Fraction) -> int | None:
    """How many frames a video has at a rate, by the rules of `decode`."""
    times = video.cadence
    if video.count is None:
        return None
    if not times.constant:
        return max(math.floor(video.seconds * rate + Fraction(1, 2)), 1)
    return video.count if rate == times.rate else math.ceil(video.count * rate / times.rate)


def _check_start(source: Path, selection: Selection, seconds: Fraction) -> None:
    if 0 < seconds <= selection.start:
        raise InputError(
            f"{source} is {_number(seconds)} s long, but --start is {_number(selection.start)}.",
            "Start earlier.",
        )


def _rate_notes(video: Probe, selection: Selection, rate: Fraction) -> list[str]:
    times = video.cadence
    if not times.constant:
        advice = "" if selection.fps is not None else " Choose another rate with --fps."
        span = f"between {_number(times.slowest)} and {_number(times.fastest)}"
        return [f"The frame rate varies {span}: frames were resampled to {_number(rate)} per second.{advice}"]
    return [f"{_rates(times.rate, rate)}."] if rate != times.rate else []


def _rates(stored: Fraction, rate: Fraction) -> str:
    return f"Frames were resampled from {_number(stored)} to {_number(rate)} per second"


def _number(value: Fraction) -> str:
    return f"{float(value):.2f}".rstrip("0").rstrip(".")


def _scaled(size: tuple[int, int], target: tuple[int, int]) -> str:
    return f"Frames were scaled down from {size[0]}x{size[1]} to {target[0]}x{target[1]}."


def _shown_size(video: Probe, like: tuple[int, int]) -> tuple[int, int]:
    """Columns and rows of a video as players show it, upright like a frame of it."""
    width, height = video.width, video.height
    if video.aspect > 1:
        width = round(width * video.aspect)
    else:
        height = round(height / video.aspect)
    return (width, height) if (width > height) == (like[0] > like[1]) else (height, width)


def _fitting(size: tuple[int, int], limit: int | None) -> tuple[int, int]:
    """A size with its longer side within a limit and the same shape."""
    longer = max(size)
    if limit is None or longer <= limit:
        return size
    return max(1, round(size[0] * limit / longer)), max(1, round(size[1] * limit / longer))


def _primed(frames: Generator[Image | None]) -> Generator[Image]:
    """A generator that has started, so that closing it runs its clean-up even before the first frame."""
    next(frames)
    return frames  # type: ignore[return-value]  # the only None is the one just taken


def _images(
    files: list[Path], like: Path, size: tuple[int, int], target: tuple[int, int]
) -> Generator[Image | None]:
    yield None
    for path in files:
        image = stills.read_image(path)
        if (image.shape[1], image.shape[0]) != size:
            raise InputError(
                f"{path} is {image.shape[1]}x{image.shape[0]}, but {like.name} is {size[0]}x{size[1]}.",
                "All images of a folder must have one size.",
            )
        yield shrink(image, target)


def _converted(first: decode.Pixmap, rest: Generator[decode.Pixmap], skip: int) -> Generator[Image | None]:
    try:
        yield None
        if not skip:
            yield first.image()
        del first
        for pixmap in rest:
            yield pixmap.image()
    finally:
        rest.close()
