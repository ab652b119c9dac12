"""Pictures of too many pixels are not decoded by ffmpeg, whatever the file around them says."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import soundfile
from upstreams import claimed

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.video import read_frames

MEASURED = """
import resource, sys
from pathlib import Path
from musetalk_cli.errors import InputError
from musetalk_cli.media.audio import probe_sound
from musetalk_cli.media.video import read_frames
try:
    probe_sound(Path(sys.argv[2])) if sys.argv[1] == "sound" else list(read_frames(Path(sys.argv[2])))
    print("read")
except InputError as error:
    print(error.message)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def measured(kind, path):
    """What is said of a file, and the peak of ffmpeg's resident size in MiB."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, kind, path], capture_output=True, text=True, timeout=60, check=True
    )
    said, peak = ended.stdout.splitlines()
    return said, int(peak) >> 10


def gif(side):
    """A GIF of one frame that claims any size, of which a few pixels are there."""
    size = side.to_bytes(2, "little") * 2
    head = b"GIF89a" + size + b"\x80\0\0" + bytes(3) + b"\xff" * 3
    return head + b"\x2c" + bytes(4) + size + b"\0\2\x0a\x84\x1d\x99\x87\x1a\x0c\xdf\x9a\x94\0\0\x3b"


def jpeg(side):
    return cv2.imencode(".jpg", np.zeros((side, side), np.uint8))[1].tobytes()


@pytest.mark.parametrize("side", [16_000, pytest.param(24_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["gif", "png"])
def test_a_small_file_of_a_huge_frame_costs_ffmpeg_nothing(tmp_path, kind, side):
    path = tmp_path / {"gif": "a.gif", "png": "a.bin"}[kind]
    path.write_bytes(gif(side) if kind == "gif" else claimed(side, side))
    said, peak = measured("video", path)
    assert f"frames of {side}x{side}, more than the 64 million pixels" in said
    assert peak < 200


def test_a_frame_that_is_huge_after_small_ones_is_refused(tmp_path):
    (tmp_path / "both.mjpeg").write_bytes(jpeg(64) * 60 + jpeg(9_000))
    path = tmp_path / "both.avi"
    command = [ffmpeg.executable(), "-v", "error", "-i", tmp_path / "both.mjpeg", "-c", "copy", path]
    subprocess.run(command, check=True, timeout=60)
    with read_frames(path) as video, pytest.raises(InputError, match="frames of 9000x9000"):
        list(video)


@pytest.mark.slow
def test_a_frame_as_large_as_may_be_is_read(tmp_path):
    (tmp_path / "a.mjpeg").write_bytes(jpeg(8_192))
    path = tmp_path / "a.avi"
    command = [ffmpeg.executable(), "-v", "error", "-i", tmp_path / "a.mjpeg", "-c", "copy", path]
    subprocess.run(command, check=True, timeout=60)
    with read_frames(path) as video:
        assert next(iter(video)).shape == (8_192, 8_192, 3)


def test_the_cover_of_an_album_may_claim_what_it_likes(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.4, 0.4, 16_000), 16_000)
    cover = b"\0image/png\0\3\0" + claimed(16_000, 16_000)
    frame = b"APIC" + len(cover).to_bytes(4, "big") + b"\0\0" + cover
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    mp3 = subprocess.run(
        [ffmpeg.executable(), "-v", "error", "-i", tmp_path / "a.wav",
         "-id3v2_version", "0", "-f", "mp3", "-"],
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    (tmp_path / "a.mp3").write_bytes(b"ID3\3\0\0" + size + frame + mp3)
    said, peak = measured("sound", tmp_path / "a.mp3")
    assert said == "read"
    assert peak < 200
