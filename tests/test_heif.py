"""HEIC and AVIF photographs: all of their tiles, or a refusal that names them."""

import shutil
import sys

import numpy as np
import pytest
from photographs import encoded, tiled
from PIL import Image, features
from test_video_pixels import BLACK, blocks, first, inside

from musetalk_cli.errors import InputError
from musetalk_cli.media.video import read_frames

KINDS = ["HEIC", "AVIF"]


def assert_shows(path, image, off=5):
    frame, video = first(path)
    assert (video.height, video.width) == frame.shape[:2] == image.shape[:2]
    assert video.expected == 1
    assert np.abs(inside(frame)[..., ::-1] - inside(image)).max() <= off
    return video


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(112, 144), (64, 192), (192, 64), (64, 64)])
def test_every_tile_has_its_place(tmp_path, kind, size):
    image = blocks(1, size=size)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(tiled(image, kind))
    assert assert_shows(path, image).notes == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a", "a.jpg", "a.mp4", "a.HEIF"])
def test_a_photograph_is_known_by_its_beginning(tmp_path, kind, name):
    image = blocks(2, size=(112, 144))
    (tmp_path / name).write_bytes(tiled(image, kind))
    assert_shows(tmp_path / name, image)


def test_a_folder_of_photographs(tmp_path):
    images = [blocks(seed, size=(112, 80)) for seed in range(4)]
    for number, image in enumerate(images):
        kind = KINDS[number % 2]
        (tmp_path / f"{number}.{kind.lower()}").write_bytes(tiled(image, kind))
    with read_frames(tmp_path) as video:
        frames = list(video)
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(inside(frame)[..., ::-1] - inside(image)).max() <= 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_upright(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = blocks(3)
    path = tmp_path / "a.heic"
    path.write_bytes(encoded(image, kind, exif=exif.tobytes()))
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    upright = image if turn is None else np.asarray(Image.fromarray(image).transpose(Image.Transpose(turn)))
    assert_shows(path, upright)


def test_transparency_is_put_on_black(tmp_path):
    image = np.dstack([blocks(4), np.full((48, 64), 128, np.uint8)])
    for kind in KINDS:
        path = tmp_path / f"a.{kind.lower()}"
        path.write_bytes(encoded(image, kind))
        frame, video = first(path)
        assert np.abs(inside(frame)[..., ::-1] - inside(image)[..., :3] * 128 / 255).max() <= 5
        assert BLACK in video.notes[0]


def test_what_reads_it_is_named_where_it_is_missing(tmp_path, monkeypatch):
    for kind in KINDS:
        (tmp_path / kind).write_bytes(tiled(blocks(5), kind))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(InputError, match=r"HEIC is a HEIC picture") as caught:
        read_frames(tmp_path / "HEIC")
    assert "musetalk-cli[heic]" in caught.value.hint
    with pytest.raises(InputError, match=r"AVIF is an AVIF picture") as caught:
        read_frames(tmp_path / "AVIF")
    assert "pillow>=11.3" in caught.value.hint


def test_a_moving_picture_is_refused_by_name(tmp_path):
    pictures = [Image.fromarray(blocks(seed)) for seed in range(3)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40)
    shutil.copy(tmp_path / "a.avif", tmp_path / "a.mp4")
    for name in ("a.avif", "a.mp4"):
        with pytest.raises(InputError, match=rf"{name} is a moving AVIF picture"):
            read_frames(tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.97])
def test_a_photograph_that_is_cut_off_is_refused(tmp_path, kind, share):
    data = tiled(blocks(6, size=(112, 144)), kind)
    path = tmp_path / "a.heic"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"a\.heic"):
        read_frames(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_photograph_that_claims_to_be_huge_is_refused(tmp_path, kind):
    data = tiled(blocks(7, size=(112, 144)), kind)
    at = data.index(b"ispe", data.index(b"ispe") + 4) + 8
    path = tmp_path / "a.heic"
    path.write_bytes(data[:at] + (60_000).to_bytes(4, "big") * 2 + data[at + 8 :])
    with pytest.raises(InputError, match=r"a\.heic"):
        read_frames(path)
