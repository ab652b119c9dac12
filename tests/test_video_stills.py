"""Images as frames: opaque, 8 bits, upright."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from test_video import ffmpeg
from test_video_pixels import BLACK, blocks, first, inside, over_black

from musetalk_cli.media import stills


def write_png(path, image, **options):
    assert cv2.imwrite(str(path), image, **options)
    return path


def test_a_transparent_image_is_put_on_black(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 4)).astype(np.uint8)
    frame, video = first(write_png(tmp_path / "a.png", image))
    assert BLACK in video.notes[0]
    assert np.abs(frame - over_black(image)).max() <= 1
    np.testing.assert_array_equal(frame, np.round(image[..., :3] * (image[..., 3:] / 255.0)))
    assert (frame[image[..., 3] == 255] == image[image[..., 3] == 255][:, :3]).all()
    assert (frame[image[..., 3] == 0] == 0).all()
    for name in ("a.webp", "a.tif"):
        Image.fromarray(image[..., [2, 1, 0, 3]], "RGBA").save(tmp_path / name, lossless=True, exact=True)
        again, video = first(tmp_path / name)
        assert np.abs(again - frame).max() <= 1
        assert BLACK in video.notes[0]


def test_other_transparent_images(tmp_path):
    pair = np.random.default_rng(1).integers(0, 256, (40, 40, 2)).astype(np.uint8)
    Image.fromarray(pair, "LA").save(tmp_path / "grey.png")
    colours = Image.fromarray(blocks(1)).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    colours.save(tmp_path / "palette.png", transparency=bytes([0, 255, 40, 255, 90, 255, 255, 200]))
    Image.fromarray(blocks(2)).save(tmp_path / "key.png", transparency=tuple(map(int, blocks(2)[0, 0])))
    for name in ("grey", "palette", "key"):
        path = tmp_path / f"{name}.png"
        wanted = over_black(np.asarray(Image.open(path).convert("RGBA"))[..., [2, 1, 0, 3]])
        frame, video = first(path)
        assert np.abs(frame - wanted).max() <= 1
        assert BLACK in video.notes[0]


def test_sixteen_bits_become_eight(tmp_path):
    image = np.random.default_rng(2).integers(0, 65536, (48, 64, 4)).astype(np.uint16)
    whole = np.round(image / 257.0)
    for name, stored, wanted in (
        ("colour.png", image[..., :3], whole[..., :3]),
        ("colour.tif", image[..., :3], whole[..., :3]),
        ("grey.png", image[..., 0], np.repeat(whole[..., :1], 3, 2)),
        ("alpha.png", image, np.round(image[..., :3] / 257.0 * (image[..., 3:] / 65535.0))),
    ):
        frame, video = first(write_png(tmp_path / name, stored))
        assert np.abs(frame - wanted).max() <= (1 if name == "alpha.png" else 0)
        assert bool(video.notes) == (name == "alpha.png")
    ffmpeg("-i", tmp_path / "alpha.png", "-pix_fmt", "rgba64le", tmp_path / "alpha.tif")
    np.testing.assert_array_equal(first(tmp_path / "alpha.tif")[0], frame)


KINDS = [("png", "RGB"), ("png", "RGBA"), ("webp", "RGB"), ("webp", "RGBA"), ("tif", "RGB"), ("tif", "RGBA")]


@pytest.mark.parametrize(("suffix", "mode"), [*KINDS, ("jpg", "RGB")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path, suffix, mode, orientation):
    path = tmp_path / f"turned.{suffix}"
    channels = blocks(3, len(mode))
    if mode == "RGBA":
        channels[..., 3] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(channels, mode).save(path, exif=exif, **lossless)
    upright = Image.fromarray(channels[..., :3])
    upright.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(upright))[..., ::-1].astype(int)
    frame, _ = first(path)
    assert frame.shape == wanted.shape
    difference = inside(frame) - inside(wanted) if suffix == "jpg" else frame - wanted
    assert np.abs(difference).max() <= (4 if suffix == "jpg" else 0)


def test_the_note_on_a_folder_where_one_image_is_transparent(tmp_path):
    for number in range(3):
        image = blocks(number, 4 if number == 2 else 3)
        write_png(tmp_path / f"{number}.png", image)
    _, video = first(tmp_path)
    assert [BLACK in note for note in video.notes] == [True]


def test_headers_of_what_is_no_image(tmp_path):
    (tmp_path / "text.png").write_text("This is not an image.")
    assert not stills.has_alpha(tmp_path / "text.png")
    assert not stills.is_animated(tmp_path / "text.png")
    assert not stills.is_animated(tmp_path / "none.webp")
