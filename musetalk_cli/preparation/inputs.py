"""What goes into a preparation, and what its result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from musetalk_cli.avatar.description import Json
from musetalk_cli.face.haar import HaarFinder, are_canonical
from musetalk_cli.face.landmarks import FaceLandmarks, Finder
from musetalk_cli.media.digest import digest_of
from musetalk_cli.media.video import Selection, source_files
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.types import Image

if TYPE_CHECKING:
    from torch import Tensor

Encode = Callable[[Image], "Tensor"]
"""uint8 `[B, 256, 256, 3]` BGR faces to float32 `[B, 8, 32, 32]` latents."""
Parse = Callable[[Sequence[Image]], Image]
"""uint8 `[height, width, 3]` BGR crops to uint8 `[B, 512, 512]` BiSeNet labels."""

VERSION = 2
"""Of the arithmetic: raised where the same inputs give another result."""

LANDMARKS_CUTOFF_HZ = 3.0
"""How fast a motion may be that smoothing keeps, where the landmarks come from the user."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureSource:
    """What an avatar is made from.

    Attributes:
        path: Video, image or folder of images.
        selection: Which part of it, at which rate and size.
        idle: A clip that is shown in silence; None for none.
        landmarks: One entry per frame, None where there is no face; or None where they are to be found.
    """

    path: Path
    selection: Selection = field(default_factory=Selection)
    idle: Path | None = None
    landmarks: Sequence[FaceLandmarks | None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FaceNetworks:
    """What finds, parses and encodes faces.

    Attributes:
        encode: Gives the latents of a batch of faces.
        finder: Finds faces; not needed where the landmarks are given.
        parse: Labels the pixels of crops; without it the mask is the outline of the landmarks.
        batch_size: Faces that are worth encoding at once.
        fingerprint: What the results of the networks depend on, so that only the same work is resumed.
    """

    encode: Encode
    finder: Finder | None = None
    parse: Parse | None = None
    batch_size: int = 8
    fingerprint: Mapping[str, Json] = field(default_factory=dict)


def selected(selection: Selection) -> dict[str, Json]:
    """What of a selection is not the whole source, as plain values."""
    values = {field.name: getattr(selection, field.name) for field in dataclasses.fields(selection)}
    whole = {field.name: field.default for field in dataclasses.fields(selection)}
    return {
        name: value if isinstance(value, int) else str(value)
        for name, value in values.items()
        if value != whole[name]
    }


def resume_key(
    source: PictureSource,
    digest: str,
    networks: FaceNetworks,
    options: PrepareOptions,
    model: Mapping[str, Json],
) -> dict[str, Json]:
    """Everything that the result depends on, as plain values."""
    idle = digest_of(source_files(source.idle)) if source.idle else None
    landmarks = None
    if source.landmarks is not None:
        digested = hashlib.sha256()
        for face in source.landmarks:
            digested.update(
                b"null" if face is None else face.points.tobytes() + repr(face.detection).encode()
            )
        landmarks = digested.hexdigest()
    return {
        "version": VERSION,
        "source": digest,
        "selection": selected(source.selection),
        "idle": idle,
        "landmarks": landmarks,
        "finder": networks.finder.name if networks.finder else None,
        "parsed": networks.parse is not None,
        "networks": networks.fingerprint,
        "batch_size": options.batch_size or networks.batch_size,
        "options": repr(options),
        "model": model,
    }


@dataclass(frozen=True, slots=True)
class Origin:
    """Where landmarks come from.

    Attributes:
        name: What `avatar.json` records.
        sees_mouth: True where they follow the mouth.
        cutoff_hz: How fast a motion may be that smoothing keeps, in Hz.
    """

    name: str
    sees_mouth: bool
    cutoff_hz: float

    @classmethod
    def of(cls, source: PictureSource, finder: Finder | None) -> Origin:
        """The finder, or the user's file, in which the cascade's faces can be told from others."""
        if finder is not None:
            return cls(finder.name, finder.sees_mouth, finder.cutoff_hz)
        rough = are_canonical(source.landmarks or ())
        return cls("file", not rough, HaarFinder.cutoff_hz if rough else LANDMARKS_CUTOFF_HZ)
