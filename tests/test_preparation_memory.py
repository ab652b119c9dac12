"""Reading and preparing pictures takes no more memory than the budget, and a lack of it is called so."""

import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import torch
from face_graphs import face_shape
from peaks import bounded
from photographs import rgb_profile
from PIL import Image
from upstreams import claimed

from musetalk_cli.budget import VARIABLE
from musetalk_cli.errors import InputError, MuseTalkError
from musetalk_cli.face.boxes import box_around
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.stills import read_image
from musetalk_cli.media.video import read_frames
from musetalk_cli.preparation.inputs import FaceNetworks, PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.run import prepare_avatar

MIB, GIB = 1 << 20, 1 << 30
BYTES_PER_PIXEL = 32
"""What is said of decoding one picture."""


def prepare(folder, picture, side, share=0.3, **networks):
    """Prepare an avatar from a folder of links to one picture with a face of this share of its sides."""
    (folder / "pictures").mkdir()
    (folder / "pictures" / "00.png").write_bytes(picture)
    for number in range(1, 12):
        (folder / "pictures" / f"{number:02}.png").hardlink_to(folder / "pictures" / "00.png")
    points = face_shape() * side * share + side / 2
    face = FaceLandmarks(points, box_around(points).clamp(side, side))
    return prepare_avatar(
        PictureSource(folder / "pictures", landmarks=[face] * 12),
        folder / "avatars",
        "a",
        networks=FaceNetworks(lambda faces: torch.zeros(len(faces), 8, 32, 32), **networks),
        options=PrepareOptions(),
        model={"version": "v15"},
    )


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (GIB, "00.png shows would take 1.9 GiB of memory, more than the 1.0 GiB it may"),
        pytest.param(2 * GIB, "Preparing frames of 8000x8000 would take 2.9 GiB", marks=pytest.mark.slow),
    ],
)
def test_links_to_one_large_picture_are_refused_by_its_header(tmp_path, monkeypatch, budget, said):
    monkeypatch.setenv(VARIABLE, f"{budget >> 20}M")
    picture = claimed(8000, 8000, 8000)
    with bounded(budget), pytest.raises(InputError, match=said) as caught:
        prepare(tmp_path, picture, 8000)
    assert VARIABLE in caught.value.hint
    assert not list((tmp_path / "avatars").glob(".*"))


@pytest.mark.slow
def test_what_is_within_the_budget_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "200M")
    noise = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    picture = cv2.imencode(".png", noise)[1].tobytes()
    with bounded(200 * MIB):
        assert prepare(tmp_path, picture, 1200).meta.frames == 12


def test_faces_that_are_too_large_are_refused_when_they_are_known(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "160M")
    picture = cv2.imencode(".png", np.zeros((1000, 1000, 3), np.uint8))[1].tobytes()
    with pytest.raises(InputError, match=r"Preparing faces of 1490x1490 would take 261 MiB"):
        prepare(tmp_path, picture, 1000, share=0.55, parse=lambda crops: None, batch_size=8)
    assert not list((tmp_path / "avatars").glob(".*"))


def write_picture(path, kind, side):
    if kind == "CMYK":
        Image.new("CMYK", (side, side)).save(path, "JPEG", progressive=True)
        return
    shape = (side, side, {"RGB": 3, "RGBA": 4}[kind.rstrip("16")])
    cv2.imwrite(str(path), np.zeros(shape, np.uint16 if kind.endswith("16") else np.uint8))
    if path.stem == "profile":
        data, profile = path.read_bytes(), b"iCCPname\0\0" + zlib.compress(rgb_profile())
        chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
        path.write_bytes(data[:33] + chunk + data[33:])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "RGB"), ("a.jpg", "CMYK"), ("a.tiff", "RGBA16"), ("a.webp", "RGBA"),
     *(pytest.param(*case, marks=pytest.mark.slow)
       for case in (("a.png", "RGBA"), ("a.png", "RGB16"), ("a.png", "RGBA16"),
                    ("profile.png", "RGB"), ("profile.png", "RGBA16")))],
)  # fmt: skip
def test_a_picture_takes_no_more_than_is_said_of_it(tmp_path, name, kind):
    side = 3000
    write_picture(tmp_path / name, kind, side)
    with bounded(BYTES_PER_PIXEL * side * side - 64 * MIB):
        assert read_image(tmp_path / name).shape == (side, side, 3)


STARVED = """
import resource, sys
from pathlib import Path
from musetalk_cli.media.stills import read_image
path = Path(sys.argv[1])
read_image(path)
for more in range(0, 100, 10):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (more << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    try:
        read_image(path)
    except Exception as error:
        print(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""


@pytest.mark.slow
def test_a_lack_of_memory_is_no_broken_picture(tmp_path):
    write_picture(tmp_path / "a.jpg", "CMYK", 4500)
    ended = subprocess.run(
        [sys.executable, "-c", STARVED, tmp_path / "a.jpg"], capture_output=True, text=True, check=True
    )
    assert set(ended.stdout.split()) <= {"MemoryError", "_ArrayMemoryError"}
    assert ended.stdout


def test_a_lack_of_memory_is_no_broken_video(tmp_path, monkeypatch):
    path = tmp_path / "a.avi"
    command = [ffmpeg.executable(), "-v", "error", "-f", "lavfi", "-i", "color=s=4000x4000:r=5"]
    subprocess.run([*command, "-frames:v", "5", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", path], check=True)
    starved = tmp_path / "ffmpeg"
    starved.write_text(f'#!/bin/sh\nulimit -v 300000\nexec {ffmpeg.executable()} "$@"\n')
    starved.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(starved))
    with pytest.raises(MuseTalkError, match="There is not enough memory"):
        list(read_frames(path))
