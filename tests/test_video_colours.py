"""Colours of videos, read and written, held to the arithmetic of ITU-R BT.601, BT.709 and BT.2020."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest
import soundfile
from test_video import ffmpeg

from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import read_landmarks
from musetalk_cli.media.containers import FILES, RECORDINGS
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.media.video import Selection, read_frames
from musetalk_cli.preparation.inputs import PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.run.generate import generate
from musetalk_cli.run.prepare import prepare
from musetalk_cli.types import StreamFormat

WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "bt2020nc": (0.2627, 0.0593),
    "smpte240m": (0.212, 0.087),
    "fcc": (0.3, 0.11),
}
"""Shares of red and of blue in the luma."""
SIDE = 16
WALL = (198, 128, 139)
UNTOLD = "does not say how its colours are stored"


def stored(rgb, matrix, full=False):
    """Red, green, blue of 0..255 to Y, Cb, Cr of 8 bits, not rounded."""
    kr, kb = WEIGHTS[matrix]
    red, green, blue = np.moveaxis(np.asarray(rgb, float) / 255, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    scale, base, wide = (255, 0, 255) if full else (219, 16, 224)
    both = (128 + wide * (blue - luma) / 2 / (1 - kb), 128 + wide * (red - luma) / 2 / (1 - kr))
    return np.stack([base + scale * luma, *both], -1)


def shown(ycc, matrix, full=False):
    """The inverse of `stored`, limited to 0..255."""
    kr, kb = WEIGHTS[matrix]
    scale, base, wide = (255, 0, 255) if full else (219, 16, 224)
    luma, blue, red = np.moveaxis((np.asarray(ycc, float) - (base, 128, 128)) / (scale, wide, wide), -1, 0)
    red, blue = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return (255 * np.stack([red, green, blue], -1)).clip(0, 255)


def squares(values):
    """Each value as a square of pixels."""
    return np.kron(values, np.ones((SIDE, SIDE, 1), values.dtype))


def middles(image):
    """The middle of each square of a BGR picture, as red, green, blue."""
    return image[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE, ::-1].astype(float)


def colours(rows, columns=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3))


def clip(path, ycc, tags="", pixels="yuv420p", frames=1):
    """A video without loss of squares, given as Y, Cb, Cr of 8 bits that are stored as they are."""
    planes = np.moveaxis(squares(ycc.astype(np.uint8)), -1, 0)
    path.with_suffix(".yuv").write_bytes(planes.tobytes() * frames)
    size = f"{planes.shape[2]}x{planes.shape[1]}"
    # Squares are whole squares at every subsampling, so that a format is a matter of bits alone.
    graph = f"format={pixels}" + (f",setparams={tags}" if tags else "")
    ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv444p", "-s", size, "-i", path.with_suffix(".yuv"),
           "-vf", graph, "-c:v", "libx264", "-qp", 0, path)  # fmt: skip
    return path


def first(path, selection=None):
    with read_frames(path, *([selection] if selection else [])) as video:
        return next(iter(video)), video.notes


@pytest.mark.parametrize(
    ("rows", "matrix", "full"),
    [
        pytest.param(rows, matrix, full, marks=[pytest.mark.slow] if (rows == 4) == full else [])
        for rows in (4, 45)
        for matrix in WEIGHTS
        for full in (False, True)
    ],
)
def test_a_video_that_says_its_matrix_and_range_is_read_by_them(tmp_path, matrix, full, rows):
    ycc = stored(colours(rows), matrix, full).round().clip(0, 255)
    path = clip(tmp_path / "a.mkv", ycc, f"colorspace={matrix}:range={'pc' if full else 'tv'}")
    frame, notes = first(path)
    assert np.abs(middles(frame) - shown(ycc, matrix, full)).max() <= 0.6
    assert notes == ()


@pytest.mark.parametrize(
    ("rows", "matrix"), [(4, "smpte170m"), (44, "smpte170m"), (45, "bt709"), (68, "bt709")]
)
def test_a_video_that_says_nothing_is_read_by_its_height(tmp_path, rows, matrix):
    """44 squares are 704 lines, 45 are 720."""
    ycc = stored(colours(rows), matrix).round()
    frame, notes = first(clip(tmp_path / "a.mkv", ycc))
    assert np.abs(middles(frame) - shown(ycc, matrix)).max() <= 0.6
    name = {"bt709": "BT.709 (720 lines or more)", "smpte170m": "BT.601 (fewer than 720 lines)"}[matrix]
    assert notes == (f"The video {UNTOLD}: taken as {name}.",)


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
def test_every_way_to_store_pixels_gives_the_same_colours(tmp_path, pixels):
    ycc = stored(colours(4), "bt709").round()
    frame, _ = first(clip(tmp_path / "a.mkv", ycc, "colorspace=bt709", pixels))
    assert np.abs(middles(frame) - shown(ycc, "bt709")).max() <= 1


def test_scaling_and_cutting_leave_the_colours(tmp_path):
    ycc = stored(np.tile(WALL, (4, 6, 1)), "bt709").round()
    path = clip(tmp_path / "a.mkv", ycc, "colorspace=bt709,setsar=4/3", frames=30)
    frame, _ = first(path, Selection(start=Fraction(1, 5), fps=Fraction(10), max_size=48))
    assert np.abs(frame[..., ::-1] - shown(ycc, "bt709")[0, 0]).max() <= 0.6


def test_a_video_of_colours_themselves_has_no_matrix(tmp_path):
    path = tmp_path / "a.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "color=0xC6808B:size=64x720:rate=5:duration=0.4,format=gbrp",
        "-c:v",
        "ffv1",
        path,
    )
    frame, notes = first(path)
    assert (frame[..., ::-1] == WALL).all()
    assert notes == ()


def test_a_wide_gamut_is_said(tmp_path):
    path = clip(
        tmp_path / "a.mkv", stored(colours(4), "bt709").round(), "colorspace=bt709:color_primaries=smpte432"
    )
    assert "wide gamut (Display P3)" in first(path)[1][0]


def test_a_matrix_that_cannot_be_read_is_refused_by_name(tmp_path):
    path = clip(tmp_path / "a.mkv", stored(colours(4), "bt709").round(), "colorspace=ycgco")
    with pytest.raises(InputError, match=r"a\.mkv stores colours by the matrix ycgco"):
        read_frames(path)


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("table", [FILES, RECORDINGS], ids=["FILES", "RECORDINGS"])
def test_what_is_written_comes_back_through_another_reader(tmp_path, table, suffix):
    """OpenCV itself is up to three levels off, by more than its own conversion of the exact values is."""
    given = colours(6, 8)
    image = np.ascontiguousarray(squares(given.astype(np.uint8))[..., ::-1])
    path = tmp_path / f"a{suffix}"
    stream = StreamFormat(image.shape[1], image.shape[0], Fraction(25), 16_000, 1)
    encoder = VideoEncoder(path, stream, table[suffix])
    for _ in range(5):
        encoder.write(image, np.zeros((640, 1), np.float32))
    encoder.finish()
    raw = tmp_path / "a.yuv"
    ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "yuv420p", raw)
    planes = np.frombuffer(raw.read_bytes(), np.uint8)[: image.shape[0] * image.shape[1] * 3 // 2]
    luma = planes[: image.shape[0] * image.shape[1]].reshape(image.shape[:2])[
        SIDE // 2 :: SIDE, SIDE // 2 :: SIDE
    ]
    off = luma - stored(given, "bt709")[..., 0]
    assert abs(off.mean()) < 0.2, "what is rounded is as often too high as too low"
    seen = middles(cv2.VideoCapture(str(path)).read()[1])
    assert np.abs(seen - given).mean() < 1.5


FACE = [160.0, 140.0]


@pytest.fixture
def landmarks(tmp_path):
    """A face by hand in the middle of 320x240 or more."""
    angle = np.linspace(0, np.pi, 17)
    jaw = np.stack([160 - 45 * np.cos(angle), 140 + 60 * np.sin(angle)], 1)
    points = np.concatenate([jaw, np.stack([np.linspace(125, 195, 10), np.full(10, 100.0)], 1), [FACE] * 41])
    face = {"points": points.tolist(), "box": [110, 80, 210, 205]}
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps([face]))
    return read_landmarks(path)


@pytest.mark.parametrize(
    ("rows", "matrix", "full", "tags"),
    [
        (45, "bt709", False, ""),
        (15, "smpte170m", True, "colorspace=smpte170m:range=pc"),
    ],
)
def test_a_wall_comes_back_as_it_was(golden, tmp_path, landmarks, rows, matrix, full, tags):
    """From a source through an avatar to a video, read by OpenCV and by the arithmetic of what is stored."""
    ycc = stored(np.tile(WALL, (rows, 20, 1)), matrix, full).round()
    path = clip(tmp_path / "a.mkv", ycc, tags)
    run = RunConfig(
        DataFolder(golden, "flag"), DataFolder(tmp_path, "flag"), str(golden / "models"), "cpu", "fp32"
    )
    prepare(run, PictureSource(path, landmarks=landmarks), "wall", PrepareOptions(smooth=False, max_gap=0))
    soundfile.write(tmp_path / "a.wav", np.zeros(2 * 640), 16_000)
    generate(run, JobConfig(batch_sizes=(1,)), "wall", tmp_path / "a.wav", output=tmp_path / "out.mp4")
    frame = cv2.VideoCapture(str(tmp_path / "out.mp4")).read()[1]
    wall = np.concatenate([frame[:64].reshape(-1, 3), frame[-16:].reshape(-1, 3)])[:, ::-1].astype(float)
    ffmpeg(
        "-i",
        tmp_path / "out.mp4",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "yuv444p",
        "-frames:v",
        1,
        tmp_path / "o.yuv",
    )
    planes = np.frombuffer((tmp_path / "o.yuv").read_bytes(), np.uint8).reshape(3, *frame.shape[:2])
    kept = shown(np.median(planes[:, :64].reshape(3, -1), axis=1), "bt709")
    assert np.abs(kept - shown(ycc, matrix, full)[0, 0]).max() <= 2, (
        "a level, and the rounding of Y, Cb and Cr"
    )
    assert np.abs(np.median(wall, axis=0) - shown(ycc, matrix, full)[0, 0]).max() <= 3
