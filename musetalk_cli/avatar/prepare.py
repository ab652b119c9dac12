"""From a video and the landmarks of its frames to an avatar, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from musetalk_cli.avatar.data import FACE_SIZE, LATENT_SHAPE, AvatarMeta, Json
from musetalk_cli.avatar.latents import LatentsFormat
from musetalk_cli.avatar.writer import AvatarWriter
from musetalk_cli.errors import InputError, ModelError
from musetalk_cli.face.boxes import EXTRA_MARGIN, MIN_FACE, add_margin, crop_box, face_box
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.masks import CHEEK_WIDTH, MaskMode, mask_from_outline, mask_from_parsing
from musetalk_cli.media.stills import digest_of
from musetalk_cli.media.video import VideoFrames, read_frames, source_files
from musetalk_cli.types import Box, Image

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[Image], "Tensor"]
"""uint8 `[B, 256, 256, 3]` BGR faces to float32 `[B, 8, 32, 32]` latents."""
Parse = Callable[[Image], Image]
"""uint8 `[height, width, 3]` BGR crop to uint8 `[512, 512]` BiSeNet labels."""
Progress = Callable[[int, int | None], None]
"""Called with the frames done and their number, None where it is unknown."""


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How an avatar is prepared.

    Attributes:
        bbox_shift: Rows by which the nose bridge is taken lower (more than 0) or higher.
        extra_margin: Rows added below the chin: 10 for v1.5, 0 for v1.0.
        batch_size: Faces encoded at once.
        mask_mode: Which labels the mask keeps, where a parser is given.
        cheek_width: Columns that the mode `jaw` leaves wide, left and right of the middle.
        latents: The number format the latents are stored in; fp16 takes half the space.
    """

    bbox_shift: int = 0
    extra_margin: int = EXTRA_MARGIN
    batch_size: int = 8
    mask_mode: MaskMode = "jaw"
    cheek_width: tuple[int, int] = CHEEK_WIDTH
    latents: LatentsFormat = "fp32"

    def __post_init__(self) -> None:
        if not 0 <= self.extra_margin <= 1000 or abs(self.bbox_shift) > 1000:
            raise InputError(
                "--extra-margin or --bbox-shift is out of range.", "Use 0..1000 and -1000..1000 rows."
            )
        if not 1 <= self.batch_size <= 256:
            raise InputError(f"--batch-size {self.batch_size} is outside 1..256.", "8 is a good start.")

    def parameters(self, *, parsed: bool) -> dict[str, Json]:
        """What `avatar.json` records."""
        mask: dict[str, Json] = {"mask": "outline"}
        if parsed:
            mask = {"mask": self.mask_mode, "cheek_width": list(self.cheek_width)}
        return {"bbox_shift": self.bbox_shift, "extra_margin": self.extra_margin, "smooth": "off", **mask}


def prepare_avatar(
    source: Path,
    avatars_dir: Path,
    name: str,
    *,
    landmarks: Sequence[FaceLandmarks | None],
    encode: Encode,
    options: PrepareOptions,
    model: Mapping[str, Json],
    parser: Parse | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> AvatarMeta:
    """Prepare an avatar from a video, an image or a folder of images.

    Memory does not grow with the length of the source, save for its latents (32 KB a frame, half of it in
    fp16). A frame without a face is left out of frames, boxes, masks and latents alike, and its number is
    recorded.

    Args:
        source: The video, image or folder.
        avatars_dir: Folder of avatars.
        name: Name of the new avatar.
        landmarks: One entry per frame of the source, None where there is no face.
        encode: Gives the latents of a batch of faces.
        options: How to prepare.
        model: What the latents are made for, with at least `version`.
        parser: Labels the pixels of a crop; without one the mask is the outline of the landmarks.
        overwrite: Replace an avatar of that name.
        progress: Told after every frame.

    Raises:
        InputError: The source cannot be read, has another number of frames than there are landmarks, or
            shows no face at all.
        ModelError: The encoder gave something else than finite latents.
        AvatarError: The name is not allowed or taken, or a latent is too large for the wanted format.
        OutputError: The avatar cannot be written.
    """
    writer = AvatarWriter(avatars_dir, name, overwrite=overwrite, latents=options.latents)
    digest = digest_of(source_files(source))
    with writer:
        run = _Run(writer, encode, parser, options)
        with read_frames(source) as video:
            _take_all(run, video, landmarks, source, progress)
        run.encode_waiting()
        if len(run.skipped) == len(landmarks):
            raise InputError(
                f"No frame of {source} shows a face that can be used.",
                "Check that the landmarks are in pixels and that each has a box, not null.",
            )
        return writer.finish(
            fps=video.fps,
            parameters=options.parameters(parsed=parser is not None),
            model=model,
            source={"name": source.resolve().name, "sha256": digest},
            skipped_frames=tuple(run.skipped),
        )


def _take_all(
    run: _Run,
    video: VideoFrames,
    landmarks: Sequence[FaceLandmarks | None],
    source: Path,
    progress: Progress | None,
) -> None:
    count = 0
    for frame in video:
        if count < len(landmarks):
            run.take(count, frame, landmarks[count])
        count += 1
        if progress is not None:
            progress(count, len(landmarks))
    if count != len(landmarks):
        raise InputError(
            f"{source} has {count} frames, but there are landmarks for {len(landmarks)}.",
            "The landmarks need one entry per frame, null where there is no face.",
        )


class _Run:
    """One preparation: what waits for the encoder, and which frames were left out."""

    def __init__(
        self, writer: AvatarWriter, encode: Encode, parser: Parse | None, options: PrepareOptions
    ) -> None:
        self._writer = writer
        self._encode = encode
        self._parser = parser
        self._options = options
        self._waiting: list[Image] = []
        self.skipped: list[int] = []

    def take(self, number: int, frame: Image, face: FaceLandmarks | None) -> None:
        """Write a frame and its mask and queue its face for the encoder, or record that it has none."""
        height, width = frame.shape[:2]
        options = self._options
        box = face and face_box(
            face.points, face.detection, frame=(width, height), bbox_shift=options.bbox_shift
        )
        if face is None or not box or min(box.width, box.height) < MIN_FACE:
            self.skipped.append(number)
            return
        box = add_margin(box, options.extra_margin, height)
        crop = crop_box(box)
        self._writer.add(frame, self._mask(frame, face, box, crop), box, crop)
        self._waiting.append(face_image(frame, box))
        if len(self._waiting) == options.batch_size:
            self.encode_waiting()

    def encode_waiting(self) -> None:
        """Encode the faces that wait and hand their latents over.

        Raises:
            ModelError: The encoder gave something else than finite latents of the faces.
        """
        if not self._waiting:
            return
        latents = self._encode(np.stack(self._waiting)).detach().float().cpu().numpy()
        if latents.shape != (len(self._waiting), *LATENT_SHAPE) or not np.isfinite(latents).all():
            raise ModelError(
                f"The encoder gave {list(latents.shape)} numbers, or some that are not finite, "
                f"instead of {[len(self._waiting), *LATENT_SHAPE]} latents.",
                "Check the model with `musetalk models verify`.",
            )
        self._writer.add_latents(latents)
        self._waiting.clear()

    def _mask(self, frame: Image, face: FaceLandmarks, box: Box, crop: Box) -> Image:
        if self._parser is None:
            return mask_from_outline(face.points, box, crop)
        labels = self._parser(crop_image(frame, crop))
        return mask_from_parsing(labels, box, crop, self._options.mask_mode, self._options.cheek_width)


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
