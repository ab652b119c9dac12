"""Interlaced videos: known by their field order or by their combs, and made whole at the same rate."""

from fractions import Fraction
from itertools import product

import cv2
import numpy as np
import pytest
from test_video import ffmpeg

from musetalk_cli.media.probe import probe
from musetalk_cli.media.video import Selection, read_frames

SIZE = (160, 128)
SLOW_GRAPHS = [
    pytest.param(graph, marks=pytest.mark.slow)
    for graph in (
        "testsrc=size=160x128:rate=25",
        "testsrc2=size=160x128:rate=15,fps=25",
        "color=gray:size=160x128:rate=25",
        "testsrc=size=160x128:rate=25,fade=in:0:50",
        "testsrc2=size=160x512:rate=25,crop=160:128:0:2*n",
        "mandelbrot=size=160x128:rate=25",
    )
]
NOTE = "The video is interlaced"


def drawn(time, size=SIZE):
    """A head that sways and nods before a patterned wall, at a time in seconds."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    wall = 90 + 30 * ((rows // 7 + columns // 9) % 2)
    image = np.repeat(wall[..., None], 3, 2).astype(np.uint8)
    x = width / 2 + 0.22 * width * np.sin(5 * time)
    y = height / 2 + 0.06 * height * np.sin(7 * time)
    at = (round(16 * x), round(16 * y))
    cv2.ellipse(image, at, (16 * 34, 16 * 44), 0, 0, 360, (150, 170, 220), -1, cv2.LINE_AA, 4)
    for side in (-13, 13):
        cv2.circle(image, (at[0] + 16 * side, at[1] - 16 * 12), 16 * 5, (40, 30, 30), -1, cv2.LINE_AA, 4)
    cv2.ellipse(
        image, (at[0], at[1] + 16 * 20), (16 * 12, 16 * 5), 0, 0, 360, (60, 50, 160), -1, cv2.LINE_AA, 4
    )
    return image


def woven(number, order, rate=25):
    """A frame whose lines come from two moments, half a frame apart."""
    first, second = drawn(number / rate), drawn((number + 0.5) / rate)
    image = first.copy()
    later = 1 if order == "tff" else 0
    image[later::2] = second[later::2]
    return image


def clip(path, images, *options, rate=25, field="prog"):
    images = list(images)
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"".join(image.tobytes() for image in images))
    size = f"{images[0].shape[1]}x{images[0].shape[0]}"
    ffmpeg("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", size, "-framerate", rate, "-i", raw, "-vf",
           f"format=yuv444p,setfield={field}", "-c:v", "libx264", "-crf", 12, *options, path)  # fmt: skip
    return path


def interlaced(path, order="tff", flagged=False, count=40, rate=25):
    images = (woven(number, order, rate) for number in range(count))
    if not flagged:
        return clip(path, images, rate=rate)
    return clip(path, images, "-flags", "+ilme+ildct", rate=rate, field=order)


def combs(image):
    """How much lines differ from the mean of their neighbours."""
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(int)
    return np.abs(luma[:-2] + luma[2:] - 2 * luma[1:-1]).mean()


def error(image, other):
    return np.abs(image.astype(int) - other).mean()


def frames_of(path, *selection):
    with read_frames(path, *selection) as video:
        return list(video), video


@pytest.mark.parametrize(
    ("suffix", "order", "flagged"),
    [
        *(("mp4", "tff", False), ("mkv", "bff", True)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in product(["mp4", "mkv", "avi"], ["tff", "bff"], [False, True])
            if case not in {("mp4", "tff", False), ("mkv", "bff", True)}
        ),
    ],
)
def test_an_interlaced_clip_becomes_whole_at_its_rate(tmp_path, suffix, order, flagged):
    path = interlaced(tmp_path / f"a.{suffix}", order, flagged)
    assert probe(path).interlaced == flagged
    frames, video = frames_of(path)
    assert (video.fps, len(frames), video.expected) == (25, 40, 40)
    notes = [note for note in video.notes if note.startswith(NOTE)]
    assert len(notes) == 1
    assert ("as it says" in notes[0]) == flagged
    errors = []
    for number in range(2, 38):
        whole, comb = drawn(number / 25), woven(number, order)
        assert combs(frames[number]) < combs(whole) + 0.2
        errors.append((error(frames[number], whole), error(comb, whole)))
    made, stored = np.mean(errors, axis=0)
    assert made < 0.8 * stored


@pytest.mark.parametrize("rate", [24, 50, *(pytest.param(rate, marks=pytest.mark.slow) for rate in (25, 30))])
def test_a_whole_clip_is_left_alone(tmp_path, rate):
    path = clip(tmp_path / "a.mp4", (drawn(number / rate) for number in range(50)), rate=rate)
    frames, video = frames_of(path)
    assert not any(NOTE in note for note in video.notes)
    assert max(error(frame, drawn(number / rate)) for number, frame in enumerate(frames)) < 3


@pytest.mark.parametrize(
    "graph",
    [
        "testsrc2=size=160x128:rate=25",
        "testsrc2=size=160x128:rate=25/2,fps=25",
        pytest.param("testsrc2=size=160x128:rate=25,noise=alls=40:allf=t", marks=pytest.mark.slow),
        pytest.param("color=gray:size=160x128:rate=25,noise=alls=60:allf=t", marks=pytest.mark.slow),
        "testsrc2=size=160x512:rate=25,crop=160:128:0:n",
        "testsrc2=size=160x512:rate=25,crop=160:128:0:n+n*n/40",
        "testsrc2=size=512x128:rate=25,crop=160:128:3*n:0",
        pytest.param("life=size=160x128:rate=25:mold=10", marks=pytest.mark.slow),
        "color=gray:size=160x128:rate=25,geq=lum='255*mod(floor((Y+N)/2),2)':cb=128:cr=128",
        *SLOW_GRAPHS,
    ],
)
def test_nothing_whole_is_taken_for_interlaced(tmp_path, graph):
    path = tmp_path / "a.mp4"
    ffmpeg("-f", "lavfi", "-i", graph, "-frames:v", 60, "-c:v", "libx264", "-pix_fmt", "yuv420p", path)
    assert not any(NOTE in note for note in frames_of(path, Selection(max_frames=1))[1].notes)


def test_what_a_still_video_says_of_itself_is_believed(tmp_path):
    path = clip(tmp_path / "a.mp4", [drawn(0)] * 10, "-flags", "+ilme+ildct", field="bff")
    frames, video = frames_of(path)
    assert any(f"{NOTE}, as it says" in note for note in video.notes)
    assert len(frames) == 10
    assert error(frames[5], drawn(0)) < 1


@pytest.mark.parametrize("start", [0, 9])
def test_the_part_that_is_taken_decides(tmp_path, start):
    images = [drawn(number / 25) for number in range(225)] + [
        woven(number, "tff") for number in range(225, 275)
    ]
    path = clip(tmp_path / "a.mp4", images, "-g", 25)
    selection = Selection(start=Fraction(start), duration=Fraction(2))
    _, video = frames_of(path, selection)
    assert any(NOTE in note for note in video.notes) == (start == 9)


def test_a_still_beginning_hides_nothing(tmp_path):
    images = [drawn(0)] * 200 + [woven(number, "bff") for number in range(150)]
    _, video = frames_of(clip(tmp_path / "a.mp4", images), Selection(max_frames=1))
    assert any(NOTE in note for note in video.notes)


def test_reading_on_gives_the_same_frames(tmp_path):
    path = interlaced(tmp_path / "a.mp4", count=40)
    whole, _ = frames_of(path)
    with read_frames(path, skip=17) as video:
        for frame, wanted in zip(video, whole[17:], strict=True):
            np.testing.assert_array_equal(frame, wanted)


@pytest.mark.parametrize("turn", [90, 180, pytest.param(270, marks=pytest.mark.slow)])
def test_a_turned_clip_is_made_whole_along_its_own_lines(tmp_path, turn):
    straight = interlaced(tmp_path / "a.mp4")
    ffmpeg("-display_rotation", turn, "-i", straight, "-c", "copy", tmp_path / "b.mp4")
    wanted, _ = frames_of(straight)
    got, video = frames_of(tmp_path / "b.mp4")
    assert any(NOTE in note for note in video.notes)
    for frame, other in zip(got, wanted, strict=True):
        assert np.abs(np.rot90(frame, -turn // 90).astype(int) - other).max() <= 1
