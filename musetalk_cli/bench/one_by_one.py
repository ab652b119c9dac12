"""The published order of work on our own parts: what the order alone costs.

Frames go to files first, all are read back and stay in memory, each is searched as a whole and by itself,
faces are encoded and masks made one at a time, and every frame is written once more beside its mask, all in
one thread. The published code also does the last step for the mirrored half of the loop; that is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np

from musetalk_cli.avatar.latents import LatentsFile
from musetalk_cli.avatar.layout import FRAMES_DIR, MASKS_DIR, image_name
from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import FaceLandmarks, Finder
from musetalk_cli.face.motion import difference, find_cuts, thumbnail
from musetalk_cli.face.settings import MaskShape
from musetalk_cli.face.tracks import choose
from musetalk_cli.measure.throughput import StageRates
from musetalk_cli.media.stills import read_image, write_png
from musetalk_cli.media.video import read_frames
from musetalk_cli.preparation.imaging import crop_image, face_image, face_mask
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.plan import Face, Plan, make_plan
from musetalk_cli.types import Image


def prepare_one_by_one(
    source: PictureSource,
    folder: Path,
    networks: FaceNetworks,
    options: PrepareOptions,
    version: str,
    rates: StageRates,
) -> Plan:
    """Prepare frames, masks and latents, without a description.

    Args:
        source: A clip whose faces are to be found.
        folder: Where the files go; made here.
        networks: What finds, parses and encodes; each gets one frame at a time.
        options: How to prepare.
        version: Of the model the latents are for.
        rates: Told what each stage takes; a frame that is written twice counts once.

    Returns:
        What became of each frame.

    Raises:
        InputError: The source cannot be read, or shows no face.
        OutputError: A file cannot be written.
        OSError: The folder or the latents cannot be written.
        ValueError: The networks cannot find faces.
    """
    if networks.finder is None:
        raise ValueError("the networks have no finder")
    for place in (FRAMES_DIR, MASKS_DIR):
        (folder / place).mkdir(parents=True)
    count, fps = _extract(source, folder, rates)
    pictures = []
    for number in range(count):
        with rates.span("read"):
            pictures.append(read_image(folder / FRAMES_DIR / image_name(number)))
    plan = _plan(_search(pictures, networks.finder, rates), pictures, fps, networks.finder, options, version)
    if not plan.animated:
        raise InputError(f"No frame of {source.path} shows a face that can be used.")
    latents = []
    for picture, face in zip(pictures, plan.faces, strict=True):
        if face is not None:
            with rates.span("read", 0):
                image = face_image(picture, face.box)
            with rates.span("encode"):
                latents.append(networks.encode(image[None]).float().cpu().numpy())
    masks = []
    for number, (picture, face) in enumerate(zip(pictures, plan.faces, strict=True)):
        with rates.span("write", 0):
            write_png(folder / FRAMES_DIR / image_name(number), picture)
        if face is not None:
            mask = _mask(picture, face, networks, options.mask_for(version), rates)
            with rates.span("mask", 0):
                write_png(folder / MASKS_DIR / image_name(number), mask)
            masks.append(mask)
    with LatentsFile(folder, count, options.latents) as file:
        for number, entry in zip(plan.animated, latents, strict=True):
            file.write(number, entry)
    return plan


def _extract(source: PictureSource, folder: Path, rates: StageRates) -> tuple[int, Fraction]:
    """Every frame to its file; returns their number and rate."""
    count = 0
    with read_frames(source.path, source.selection) as video:
        for frame in rates.each("decode", video):
            with rates.span("write"):
                write_png(folder / FRAMES_DIR / image_name(count), frame)
            count += 1
    return count, video.fps


def _search(pictures: Sequence[Image], finder: Finder, rates: StageRates) -> list[list[FaceLandmarks]]:
    """The faces of each frame, found without those of the frame before."""
    found = []
    for picture in pictures:
        with rates.span("detect"):
            found += finder.find([picture], ())
    return found


def _plan(
    faces: Sequence[Sequence[FaceLandmarks]],
    pictures: Sequence[Image],
    fps: Fraction,
    finder: Finder,
    options: PrepareOptions,
    version: str,
) -> Plan:
    """The boxes by our rule, so that what follows is the same work."""
    small = [thumbnail(picture) for picture in pictures]
    changes = [difference(one, before) for before, one in pairwise(small)]
    differences = [0.0, *changes]
    height, width = pictures[0].shape[:2]
    return make_plan(
        choose([list(entry) for entry in faces], find_cuts(differences), options.face, width).faces,
        differences,
        fps=fps,
        size=(width, height),
        options=options,
        extra_margin=options.margin(version),
        cutoff_hz=finder.cutoff_hz,
    )


def _mask(picture: Image, face: Face, networks: FaceNetworks, shape: MaskShape, rates: StageRates) -> Image:
    labels: Image | None = None
    if networks.parse is not None:
        with rates.span("parse"):
            labels = np.asarray(networks.parse([crop_image(picture, face.crop)])[0], np.uint8)
    with rates.span("mask"):
        return face_mask(face, labels, shape)
