"""Colour profiles of photographs, held to the arithmetic of their curves and primaries."""

import numpy as np
import pytest
from photographs import SRGB, converted, encoded, grey_profile, ink_profile, rgb_profile, tiled
from PIL import Image, ImageCms
from test_video_pixels import blocks, first, inside

NOTE = "Colours were converted to sRGB from the profile Drawn P3."
LOSSLESS = {"a.png": {}, "a.tif": {}, "a.webp": {"lossless": True, "exact": True}}


def middles(image):
    """The middles of the squares as red, green, blue."""
    return inside(image)[..., ::-1]


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_photograph_is_converted_to_srgb(tmp_path, name):
    image = blocks(3)
    Image.fromarray(image).save(tmp_path / name, icc_profile=rgb_profile(), **LOSSLESS[name])
    frame, video = first(tmp_path / name)
    assert np.abs(middles(frame) - converted(inside(image))).max() <= 1
    assert video.notes == (NOTE,)
    assert np.abs(middles(frame) - inside(image)).max() > 10


@pytest.mark.parametrize("kind", ["jpg", "HEIC", "AVIF", "tiled HEIC", "tiled AVIF"])
def test_photographs_with_loss_too(tmp_path, kind):
    image, profile = blocks(4), rgb_profile()
    path = tmp_path / f"a.{kind[-4:].lower().strip()}"
    if kind == "jpg":
        Image.fromarray(image).save(path, icc_profile=profile, quality=100, subsampling="4:4:4")
    elif kind.startswith("tiled"):
        path.write_bytes(tiled(image, kind[-4:], profile=profile))
    elif kind == "HEIC":
        path.write_bytes(encoded(image, kind, icc_profile=profile))
    else:
        path.write_bytes(encoded(image, kind, icc_profile=profile))
    frame, video = first(path)
    assert video.notes == (NOTE,)
    # A level that the codec loses may be several in dark colours, whose curves are steep.
    assert np.abs(middles(frame) - converted(inside(image))).mean() <= 2


def test_sixteen_bits_and_transparency_keep_their_place(tmp_path):
    image = np.dstack([blocks(5), np.full((48, 64), 128, np.uint8)])
    Image.fromarray(image, "RGBA").save(tmp_path / "a.png", icc_profile=rgb_profile())
    frame, video = first(tmp_path / "a.png")
    assert np.abs(middles(frame) - converted(inside(image)[..., :3]) * 128 / 255).max() <= 1
    assert len(video.notes) == 2


def test_a_turned_photograph_is_turned_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = blocks(6)
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=rgb_profile(), exif=exif)
    frame, _ = first(tmp_path / "a.png")
    assert np.abs(middles(frame) - converted(inside(np.rot90(image, -1)))).max() <= 1


def test_a_grey_photograph(tmp_path):
    grey = blocks(7)[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    frame, _ = first(tmp_path / "a.png")
    assert np.abs(middles(frame) - converted(inside(np.dstack([grey] * 3)), SRGB, 1.0)).max() <= 1
    Image.fromarray(grey).save(tmp_path / "b.png", icc_profile=rgb_profile(SRGB, 1.0))
    assert np.abs(first(tmp_path / "b.png")[0].astype(int) - frame).max() <= 1


def test_printing_inks(tmp_path):
    """None, half of and all the black ink of a profile in which it is a quarter of all darkness."""
    inks = np.zeros((48, 48, 4), np.uint8)
    inks[..., 3] = np.repeat([0, 128, 255], 16)
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.tif", icc_profile=ink_profile())
    frame, _ = first(tmp_path / "a.tif")
    lightness = 100 - 25 * np.array([0, 128, 255]) / 255
    light = ((lightness + 16) / 116) ** 3
    wanted = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(middles(frame)[0] - wanted[:, None]).max() <= 2


def test_srgb_changes_nothing_to_the_bit(tmp_path):
    image = blocks(8)
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b""):
        Image.fromarray(image).save(tmp_path / "a.png", icc_profile=profile)
        frame, video = first(tmp_path / "a.png")
        assert (frame[..., ::-1] == image).all()
        assert video.notes == ()


@pytest.mark.parametrize("profile", [b"no profile", rgb_profile()[:200], grey_profile(2.2), ink_profile()])
def test_a_profile_that_cannot_be_used_is_said(tmp_path, profile):
    image = blocks(9)
    Image.fromarray(image).save(tmp_path / "a.png", icc_profile=profile)
    frame, video = first(tmp_path / "a.png")
    assert (frame[..., ::-1] == image).all()
    assert video.notes[0].endswith("cannot be used: colours were left as they are.")


def test_a_folder_says_its_profiles_once(tmp_path):
    for number in range(3):
        Image.fromarray(blocks(number)).save(tmp_path / f"{number}.png", icc_profile=rgb_profile())
    frame, video = first(tmp_path)
    assert video.notes == (NOTE,)
    assert [np.abs(middles(frame) - converted(inside(blocks(0)))).max() <= 1]
