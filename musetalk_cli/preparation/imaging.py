"""From the plan to masks and latents: read, parse, encode and write, side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from musetalk_cli.avatar.data import LATENT_SHAPE, Patch
from musetalk_cli.avatar.latents import LatentsFile
from musetalk_cli.avatar.layout import FRAMES_DIR, MASKS_DIR, image_name
from musetalk_cli.budget import check_budget
from musetalk_cli.errors import InputError, ModelError
from musetalk_cli.face.masks import mask_from_outline, mask_from_parsing
from musetalk_cli.face.quality import is_mouth_covered, sharpness
from musetalk_cli.face.settings import MaskShape
from musetalk_cli.handoff import ahead, batches, side_by_side
from musetalk_cli.measure.throughput import StageRates
from musetalk_cli.media.stills import read_image, write_png
from musetalk_cli.preparation.inputs import FaceNetworks, Parse
from musetalk_cli.preparation.journal import Journal
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.plan import Face, Plan
from musetalk_cli.preparation.survey import WORKERS, queue_size
from musetalk_cli.types import FACE_SIZE, Box, Image

IMAGING_FILE = "imaging.jsonl"


class FaceNote(NamedTuple):
    """What is noticed of a face on the way.

    Attributes:
        sharpness: Standard deviation of its Laplacian, in levels.
        covered: True where the parser finds no lips in their place; None where there is no parser.
        pixels: How many pixels of the frame can change.
    """

    sharpness: float
    covered: bool | None
    pixels: int


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """One frame on its way.

    Attributes:
        number: The avatar's frame.
        face: Where its face is.
        image: uint8 `[256, 256, 3]`, the face as the networks see it.
        crop: uint8 `[height, width, 3]`, what the parser sees; empty where there is no parser.
        labels: uint8 `[512, 512]`, what the parser said; None where there is no parser.
    """

    number: int
    face: Face
    image: Image
    crop: Image | None = None
    labels: Image | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Done:
    """A batch that is encoded.

    Attributes:
        works: Its frames.
        latents: float32 `[B, 8, 32, 32]`.
        notes: What was noticed of its faces, once their masks are written.
    """

    works: list[_Work]
    latents: NDArray[np.float32]
    notes: tuple[FaceNote, ...] = ()


class Imager:
    """Makes the masks and latents of a plan, and goes on where an interrupted run in the same folder stopped.

    Args:
        folder: Folder of the avatar in the making; its frames are those of the source.
        plan: What becomes of each frame.
        size: Width and height of every frame.
        options: How to prepare.
        networks: What parses and encodes.
        rates: Told what each stage takes.
        version: The model's.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        size: tuple[int, int],
        options: PrepareOptions,
        networks: FaceNetworks,
        rates: StageRates,
        version: str,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._size = size
        self._options = options
        self._shape = options.mask_for(version)
        self._tools = networks
        self._rates = rates

    def run(self, progress: Callable[[int], None]) -> list[FaceNote]:
        """Make what is missing.

        Args:
            progress: Told how many frames are done.

        Returns:
            What was noticed of every face, in the order of the frames.

        Raises:
            InputError: The faces are so large that they take more memory than the budget.
            ModelError: The encoder gave something else than finite latents.
            AvatarError: A latent is too large for its format.
            OutputError: A mask cannot be written.
            OSError: The latents cannot be written.
        """
        size, todo = self._options.batch_size or self._tools.batch_size, self._plan.animated
        workers = min(WORKERS, queue_size(*self._size))
        self._check_memory(size, workers)
        notes: list[FaceNote] = []
        with ExitStack() as stack:
            journal = stack.enter_context(Journal(self._folder / IMAGING_FILE))
            for record in journal.read():
                notes += [FaceNote(*entry) for entry in record]
            file = stack.enter_context(
                LatentsFile(self._folder, len(self._plan.faces), self._options.latents)
            )
            read = stack.enter_context(closing(side_by_side(self._read, todo[len(notes) :], workers)))
            batched = stack.enter_context(closing(ahead(batches(read, size), 2)))
            if self._tools.parse is not None:
                parsed = self._parsed(batched, self._tools.parse)
                batched = stack.enter_context(closing(ahead(parsed, 2)))
            encoded = stack.enter_context(closing(ahead(self._encoded(batched), 2)))
            for done in stack.enter_context(closing(side_by_side(self._finished, encoded, workers))):
                for work, latents in zip(done.works, done.latents, strict=True):
                    file.write(work.number, latents[None])
                journal.append(done.notes)
                notes += done.notes
                progress(len(notes))
        return notes

    def _check_memory(self, batch: int, workers: int) -> None:
        """Refuse crops of which those that are on their way take more memory than the budget.

        Raises:
            InputError: They do.
        """
        side = max(face.crop.width for face in self._plan.faces if face is not None)
        # Colours wait for the parser: those that are read, in batches that are put together, wait, and are
        # parsed. A worker makes a mask of one by way of two others, and its file.
        colours = 2 * workers + 4 * batch if self._tools.parse is not None else 0
        frames = 2 * workers * self._size[0] * self._size[1] * 3
        needed = frames + (3 * colours + 5 * workers) * side * side
        check_budget(needed, f"Preparing faces of {side}x{side}", InputError)

    def _read(self, number: int) -> _Work:
        face = self._plan.faces[number]
        if face is None:
            raise ValueError(f"frame {number} has no face")
        with self._rates.span("read"):
            frame = read_image(self._folder / FRAMES_DIR / image_name(self._plan.first + number))
            crop = crop_image(frame, face.crop) if self._tools.parse else None
            return _Work(number, face, face_image(frame, face.box), crop)

    def _parsed(self, batches: Iterator[list[_Work]], parse: Parse) -> Generator[list[_Work]]:
        for batch in batches:
            crops = [work.crop for work in batch if work.crop is not None]
            with self._rates.span("parse", len(batch)):
                labels = parse(crops)
            yield [
                _Work(work.number, work.face, work.image, labels=entry)
                for work, entry in zip(batch, labels, strict=True)
            ]

    def _encoded(self, batches: Iterator[list[_Work]]) -> Generator[_Done]:
        for batch in batches:
            with self._rates.span("encode", len(batch)):
                latents = (
                    self._tools.encode(np.stack([work.image for work in batch]))
                    .detach()
                    .float()
                    .cpu()
                    .numpy()
                )
            if latents.shape != (len(batch), *LATENT_SHAPE) or not np.isfinite(latents).all():
                raise ModelError(
                    f"The encoder gave {list(latents.shape)} numbers, or some that are not finite, "
                    f"instead of {[len(batch), *LATENT_SHAPE]} latents.",
                    "Check the model with `musetalk models verify`.",
                )
            yield _Done(batch, latents)

    def _finished(self, done: _Done) -> _Done:
        notes = []
        with self._rates.span("mask", len(done.works)):
            for work in done.works:
                mask = face_mask(work.face, work.labels, self._shape)
                write_png(self._folder / MASKS_DIR / image_name(work.number), mask)
                notes.append(_note(work, mask, self._size))
        return replace(done, notes=tuple(notes))


def face_image(frame: Image, box: Box) -> Image:
    """The face as the networks see it: uint8 `[256, 256, 3]`, BGR, resized by Lanczos over 8x8 pixels."""
    face = cv2.resize(frame[box.slices()], (FACE_SIZE, FACE_SIZE), interpolation=cv2.INTER_LANCZOS4)
    return np.asarray(face, np.uint8)


def crop_image(frame: Image, crop: Box) -> Image:
    """The crop as the parser sees it: black where it leaves the frame."""
    inside = crop.clamp(frame.shape[1], frame.shape[0])
    image = np.zeros((crop.height, crop.width, 3), np.uint8)
    image[inside.shift(-crop.x1, -crop.y1).slices()] = frame[inside.slices()]
    return image


def face_mask(face: Face, labels: Image | None, shape: MaskShape) -> Image:
    """The blending mask of a face: from its pixels' labels, or without them from its outline.

    Args:
        face: Where the face is.
        labels: uint8 `[512, 512]`, what the parser said of its crop; None where there is no parser.
        shape: What the mask keeps.

    Returns:
        uint8 `[crop.height, crop.width]`.
    """
    if labels is None:
        return mask_from_outline(face.points, face.box, face.crop, shape)
    return mask_from_parsing(labels, face.box, face.crop, shape)


def _note(work: _Work, mask: Image, frame: tuple[int, int]) -> FaceNote:
    face = work.face
    covered = None if work.labels is None else is_mouth_covered(work.labels, face.points, face.crop)
    return FaceNote(sharpness(work.image), covered, Patch.cut(mask, face.box, face.crop, frame).mask.size)
