"""Pictures for the VAE and the UNet: one moment of a person, at rest and with mouths that speech made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from musetalk_cli.face.boxes import add_margin, face_box
from musetalk_cli.face.settings import EXTRA_MARGIN
from musetalk_cli.preparation.imaging import face_image
from musetalk_cli.types import Box, Image
from training import face, portrait, visemes
from training.motion import Moment, random_moment
from training.parallel import each
from training.people import PEOPLE, Person

SPOKEN = 3
"""Speaking pictures of a moment, beside the one at rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Training pictures.

    Attributes:
        images: uint8 `[n, 4, 256, 256, 3]`, BGR: at rest, then three that speak, in the same pose.
        values: float32 `[n, 4, 5]`, the mouths.
        heard: int64 `[n, 3]`, the frames of the training clips whose mouths are drawn, numbered through.
        centres: float32 `[n, 2]`, the middle of the closed mouth, x and y in pixels of the face.
        people: int64 `[n]`, who is drawn.
    """

    images: NDArray[np.uint8]
    values: NDArray[np.float32]
    heard: NDArray[np.int64]
    centres: NDArray[np.float32]
    people: NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Write them to a folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.__slots__:
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Faces:
        """Read what `save` wrote; the pictures stay on the disk until they are looked at."""
        return cls(
            *(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in cls.__slots__)
        )


def rest_box(person: Person, moment: Moment) -> Box:
    """The face's box in the frame at rest, by the rule the product prepares avatars with."""
    points = face.landmarks(person, moment.pose, visemes.REST)
    whole = Box(0, 0, face.WIDTH, face.HEIGHT)
    box = face_box(points, whole, frame=(face.WIDTH, face.HEIGHT))
    if box is None:
        raise ValueError(f"{person.name} has left the frame at {moment.pose}")
    return add_margin(box, EXTRA_MARGIN, face.HEIGHT)


def crop(person: Person, moment: Moment, values: ArrayLike) -> Image:
    """The face as the networks see it: uint8 `[256, 256, 3]`, BGR."""
    frame = portrait.draw(person, moment.pose, values, blink=moment.blink, gaze=moment.gaze)
    return face_image(frame, rest_box(person, moment))


def centre(person: Person, moment: Moment) -> NDArray[np.float32]:
    """The middle of the closed mouth in pixels of the face: `[2]`."""
    box = rest_box(person, moment)
    place = face.mouth_centre(person, moment.pose) - (box.x1, box.y1)
    return (place * 256 / (box.width, box.height)).astype(np.float32)


def _example(
    number: int, mouths: NDArray[np.float32], seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    cv2.setNumThreads(1)
    moment = random_moment(np.random.default_rng((seed, number)))
    person = PEOPLE[number % len(PEOPLE)]
    pictures = [crop(person, moment, values) for values in (visemes.REST, *mouths)]
    return np.stack(pictures), centre(person, moment)


def make(count: int, frames: NDArray[np.float32], *, seed: int, workers: int = 2) -> Faces:
    """Draw a training set.

    Args:
        count: Moments, of each person in turn.
        frames: The mouths of all frames of the training clips, `[m, 5]`; open and round ones are drawn more.
        seed: Decides everything.
        workers: Processes; 0 draws here.
    """
    rng = np.random.default_rng(seed)
    wish = 0.35 + frames[:, visemes.OPENING] + 0.6 * frames[:, visemes.ROUNDING]
    heard = rng.choice(len(frames), (count, SPOKEN), p=wish / wish.sum())
    images = np.empty((count, SPOKEN + 1, 256, 256, 3), np.uint8)
    centres = np.empty((count, 2), np.float32)
    rest = np.tile(visemes.REST, (count, 1, 1))
    made = each(partial(_example, seed=seed), range(count), frames[heard], workers=workers)
    for number, (pictures, place) in enumerate(made):
        images[number], centres[number] = pictures, place
    people = np.arange(count) % len(PEOPLE)
    return Faces(images, np.concatenate([rest, frames[heard]], 1), heard, centres, people)


def to_tensor_array(images: Sequence[Image] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """BGR pictures `[n, rows, columns, 3]` as the VAE takes them: `[n, 3, rows, columns]`, RGB, -1..1."""
    stacked = np.asarray(images)[..., ::-1].transpose(0, 3, 1, 2)
    return np.ascontiguousarray(stacked, np.float32) / 127.5 - 1
