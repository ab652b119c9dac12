"""What putting a face into its frame takes on a CPU, beside the published order of work.

    python benchmarks/compositing.py [--rounds 200] [--sharpen] [--at-least 3]

Both take a face of 256x256 and a source frame, and give a new frame. The published code copies the frame,
turns it and the face into pictures of PIL, and back; here the patch alone is blended, and pasted into a copy
of the frame. The two are called in turn, so that whatever else the machine does meets both, and what they
make is the same, value for value. Times are of one core. The published code does not sharpen; ours does if
asked.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from fractions import Fraction

import cv2
import numpy as np
import torch
from PIL import Image as PilImage

from musetalk_cli.avatar.data import Avatar
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.pictures import Pictures
from musetalk_cli.nets.device import describe_device, keep_freed_memory
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import FrameRequest, Image

SIZES = ((640, 360, 160), (1280, 720, 300), (1920, 1080, 450), (3840, 2160, 900))
"""Columns and rows of the frame, rows of the face."""
FRAMES = 10
SILENT = np.zeros((0, 1), np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--sharpen", action="store_true")
    parser.add_argument("--at-least", type=float, default=0, help="fail where it is fewer times faster")
    options = parser.parse_args()
    keep_freed_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(describe_device(torch.device("cpu")), end="\n\n")
    print("| frame | face | published, ms | ours, ms | times faster |\n|---|---|---|---|---|")
    slowest = float("inf")
    for width, height, side in SIZES:
        theirs, ours = compare(width, height, side, options.rounds, Sharpen() if options.sharpen else None)
        print(f"| {width}x{height} | {side} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} |")
        slowest = min(slowest, theirs / ours)
    if slowest < options.at_least:
        raise SystemExit(f"{slowest:.1f} times faster is less than {options.at_least:g}.")


def compare(width: int, height: int, side: int, rounds: int, sharpen: Sharpen | None) -> tuple[float, float]:
    """Median milliseconds of a frame: the published way, and ours."""
    avatar = synthetic_avatar(width, height, side, FRAMES)
    faces = np.random.default_rng(0).integers(0, 256, (FRAMES, 256, 256, 3), np.uint8)
    publish, make = Published(avatar), Ours(avatar, sharpen)
    theirs, ours = [], []
    for number in range(rounds):
        at = number % FRAMES
        begun = time.thread_time()
        expected = publish(at, faces[at])
        between = time.thread_time()
        found = make(at, faces[at])
        ours.append(time.thread_time() - between)
        theirs.append(between - begun)
        if sharpen is None and not np.array_equal(found, expected):
            raise SystemExit(f"The frames differ at {width}x{height}.")
    return statistics.median(theirs) * 1e3, statistics.median(ours) * 1e3


class Published:
    """The published order: resize the face, put it on a crop of the frame, paste that through its mask."""

    def __init__(self, avatar: Avatar) -> None:
        self._frames, self._boxes, self._crops = avatar.frames, avatar.meta.boxes, avatar.meta.crop_boxes
        self._masks = []
        for patch, crop in zip(avatar.patches, self._crops, strict=True):
            mask = np.zeros((crop.height, crop.width), np.uint8)
            mask[patch.box.shift(-crop.x1, -crop.y1).slices()] = patch.mask
            self._masks.append(mask)

    def __call__(self, number: int, face: Image) -> Image:
        """The frame of a source frame with a face in it."""
        box, crop = self._boxes[number], self._crops[number]
        frame = copy.deepcopy(self._frames[number])
        resized = cv2.resize(face, (box.width, box.height))
        body, picture = (PilImage.fromarray(image[:, :, ::-1]) for image in (frame, resized))
        part = body.crop(crop)
        part.paste(picture, box.shift(-crop.x1, -crop.y1))
        body.paste(part, crop[:2], PilImage.fromarray(self._masks[number]).convert("L"))
        made: Image = np.array(body)[:, :, ::-1]
        return made


class Ours:
    """The product's own way: the CPU's image path, and what a session shows of its patch."""

    def __init__(self, avatar: Avatar, sharpen: Sharpen | None) -> None:
        self._path, self._sharpen = CpuPath(), sharpen
        self._targets = self._path.place(avatar)
        self._pictures = Pictures(avatar, Timeline(Fraction(25)), None)

    def __call__(self, number: int, face: Image) -> Image:
        """The frame of a source frame with a face in it."""
        faces, targets = torch.from_numpy(face[None]), [self._targets[number]]
        resized = self._path.resize(faces, targets)
        if self._sharpen is not None:
            resized = self._path.sharpen(resized, self._sharpen)
        patch = self._path.download(self._path.blend(resized, targets))()[0]
        request = FrameRequest(number, None, SILENT, 0.0, 0.0, 0, source=number)
        return self._pictures.show(request, request.fate, patch, self._pictures.idle(request), None)


if __name__ == "__main__":
    main()
