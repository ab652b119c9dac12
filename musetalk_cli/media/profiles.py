"""Colour profiles of photographs: from the colours that an ICC profile describes to sRGB."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pictures
from PIL import ImageCms

from musetalk_cli.types import Image

_INPUTS = {
    "RGB": ("RGB", {"RGB", "RGBA", "P", "PA", "L", "LA", "1"}),
    "GRAY": ("L", {"L", "LA", "1", "I;16", "I;16B", "I", "F"}),
    "CMYK": ("CMYK", {"CMYK"}),
}
"""By the colours of a profile: what its transform takes, and the pictures that may have it."""
_UNSEEN = 2
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Profile:
    """A colour profile that changes what is seen.

    Attributes:
        name: What it calls itself.
        takes: `RGB`, `L` or `CMYK`: what is converted; empty where the profile cannot be used.
        transform: Converts to sRGB; None where the profile cannot be used.
    """

    name: str
    takes: str
    transform: ImageCms.ImageCmsTransform | None

    def to_srgb(self, picture: Pictures.Image) -> Pictures.Image:
        """Convert a picture of the mode that is taken to sRGB, in mode RGB."""
        assert self.transform is not None  # noqa: S101 - says to the type checker what `takes` means
        converted = ImageCms.applyTransform(picture, self.transform)
        assert converted is not None  # noqa: S101 - None is for conversions in place
        return converted

    def convert(self, image: Image) -> Image:
        """Convert uint8 `[height, width, 3]` BGR to sRGB; as it is where the profile cannot be used."""
        if self.transform is None:
            return image
        colours = np.ascontiguousarray(image[..., 0] if self.takes == "L" else image[..., ::-1])
        return np.asarray(self.to_srgb(Pictures.fromarray(colours)))[..., ::-1]


def profile_of(picture: Pictures.Image) -> Profile | None:
    """The colour profile of a picture; None where it has none, or is sRGB but for what nobody sees."""
    data = picture.info.get("icc_profile")
    return _profile(bytes(data), picture.mode) if data else None


@functools.lru_cache(maxsize=8)
def _profile(data: bytes, mode: str) -> Profile | None:
    name = "(damaged)"
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(data))
        name = ImageCms.getProfileDescription(source).strip()[:_LONGEST]
        takes, modes = _INPUTS[source.profile.xcolor_space.strip()]
        if mode not in modes:
            return Profile(name, "", None)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), takes, "RGB")
        profile = Profile(name, takes, transform)
        return None if takes != "CMYK" and _changes_nothing(profile) else profile
    except (ImageCms.PyCMSError, KeyError, OSError, ValueError, TypeError):
        return Profile(name, "", None)


def _changes_nothing(profile: Profile) -> bool:
    """True where no colour of a grid moves by more than `_UNSEEN` levels."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    if profile.takes == "L":
        grid = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 256, 3)
    return int(np.abs(profile.convert(grid).astype(int) - grid).max()) <= _UNSEEN
