"""The avatars that belong to the bundle, and the sample they speak."""

from __future__ import annotations

import json
import tempfile
import wave
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from musetalk_cli.face.landmarks import read_landmarks
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.generator import FaceEncoder
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.run import prepare_avatar
from musetalk_cli.types import Image
from training import bundle as bundles
from training import face, portrait, visemes
from training.motion import Moment, idle
from training.people import PEOPLE, Person
from training.speech import SAMPLE_RATE, say_flite

FRAMES = 100
COLOURS = 256
SAMPLE = (
    "Hello! I am a drawn face, and my mouth follows every word that you say. "
    "Pick up a microphone, and speak through me."
)


def _few_colours(frame: Image, palette: Pictures.Image | None) -> tuple[Image, Pictures.Image]:
    picture = Pictures.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    plain = Pictures.Dither.NONE
    palette = picture.quantize(COLOURS, dither=plain) if palette is None else palette
    reduced = np.asarray(picture.quantize(palette=palette, dither=plain).convert("RGB"))
    return cv2.cvtColor(reduced, cv2.COLOR_RGB2BGR), palette


def _entry(person: Person, moment: Moment) -> dict[str, object]:
    points = face.landmarks(person, moment.pose, visemes.REST)
    low, high = points.min(0), points.max(0)
    return {"points": points.round(2).tolist(), "box": [*low.round(2).tolist(), *high.round(2).tolist()]}


def make(networks: Bundle, avatars_dir: Path, *, seed: int, frames: int = FRAMES) -> None:
    """Draw, prepare and write every person as an avatar, replacing those that are there.

    The pictures go through the product's own preparation; at the end their files are packed tighter.

    Args:
        networks: Encode the faces, in fp32.
        avatars_dir: Folder of avatars.
        seed: Of the idle loops.
        frames: Length of a loop.
    """
    for number, person in enumerate(PEOPLE):
        moments = idle(frames, seed + number)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / person.name
            source.mkdir()
            palette = None
            for index, moment in enumerate(moments):
                frame = portrait.draw(person, moment.pose, visemes.REST, blink=moment.blink, gaze=moment.gaze)
                frame, palette = _few_colours(frame, palette)
                cv2.imwrite(str(source / f"{index:08d}.png"), frame)
            points = Path(folder) / "landmarks.json"
            points.write_text(json.dumps([_entry(person, moment) for moment in moments]))
            prepare_avatar(
                PictureSource(source, landmarks=read_landmarks(points)),
                avatars_dir,
                person.name,
                networks=FaceNetworks(FaceEncoder(networks)),
                options=PrepareOptions(smooth=False, latents="fp16"),
                model={"version": networks.version, "name": bundles.NAME},
                overwrite=True,
            )
        pack(avatars_dir / person.name)


def pack(folder: Path) -> None:
    """Write an avatar's pictures again as small as PNG gets, to the pixel the same."""
    for path in [*folder.glob("full_imgs/*.png"), *folder.glob("masks/*.png")]:
        with Pictures.open(path) as opened:
            opened.load()
        picture: Pictures.Image = opened
        pixels = np.asarray(picture)
        if pixels.ndim == 3:
            reduced = picture.quantize(COLOURS, dither=Pictures.Dither.NONE)
            if np.array_equal(np.asarray(reduced.convert("RGB")), pixels):
                picture = reduced
        picture.save(path, optimize=True)


def write_sample(path: Path, text: str = SAMPLE, voice: str = "slt") -> None:
    """Speak the bundled sample: 16-bit mono at 16 kHz, half a second of silence around it."""
    said = say_flite(text, voice, stretch=1.05).samples
    silence = np.zeros(SAMPLE_RATE // 2, np.float32)
    samples: NDArray[np.float32] = np.concatenate([silence, 0.8 * said / np.abs(said).max(), silence])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
