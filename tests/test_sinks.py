import re
import subprocess
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from musetalk_cli.errors import OutputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.audio import probe_sound
from musetalk_cli.sinks import FramesSink, NullSink, RecordingSink, VideoSink, check_not_input
from musetalk_cli.types import Frame, FrameRequest, StreamFormat

STREAM = StreamFormat(63, 48, Fraction(25), 48_000, 2)
SAMPLES = 48_000 // 25


def frame(number):
    image = np.random.default_rng(number).integers(0, 255, (48, 63, 3), np.uint8)
    request = FrameRequest(number, torch.zeros(0), np.zeros((SAMPLES, 2), np.float32), 0.0, 0.0, 0)
    return Frame(request, image, number / STREAM.fps, 0.0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["video", "frames"])
def sink(request, tmp_path):
    return VideoSink(tmp_path / "out.mp4") if request.param == "video" else FramesSink(tmp_path / "out")


def test_a_result_has_its_name_only_when_it_is_complete(sink, tmp_path):
    sink.open(STREAM)
    sink.write(frame(0))
    assert not [name for name in names(tmp_path) if not name.startswith(".")]
    sink.finish()
    assert names(tmp_path) in (["out"], ["out.mp4"])


def test_abort_leaves_nothing_and_may_come_at_any_time(sink, tmp_path):
    sink.abort()
    sink.open(STREAM)
    sink.write(frame(0))
    sink.abort()
    sink.abort()
    assert names(tmp_path) == []


def test_abort_keeps_an_older_result(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"older")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "00000000.png").write_bytes(b"older")
    for sink in (VideoSink(tmp_path / "out.mp4"), FramesSink(tmp_path / "out")):
        sink.open(STREAM)
        sink.write(frame(0))
        sink.abort()
    assert (tmp_path / "out.mp4").read_bytes() == b"older"
    assert names(tmp_path / "out") == ["00000000.png"]
    assert (tmp_path / "out" / "00000000.png").read_bytes() == b"older"


def test_a_video_holds_its_frames_and_their_sound(tmp_path):
    path = tmp_path / "out %03d.mp4"
    path.write_bytes(b"older")
    sink = VideoSink(path)
    sink.open(STREAM)
    for number in range(10):
        sink.write(frame(number))
    sink.finish()
    capture = cv2.VideoCapture(str(path))
    assert sum(1 for _ in iter(lambda: capture.read()[0], False)) == 10
    sound = probe_sound(path)
    assert (sound.sample_rate, sound.channels) == (48_000, 2)
    assert sound.duration == pytest.approx(0.4, abs=0.04)


WRITTEN = {  # the first bytes hold; ffmpeg finds; the sound's rate
    ".mp4": (b"ftypisom", "h264", "aac", 48_000),
    ".mov": (b"ftypqt  ", "h264", "aac", 48_000),
    ".mkv": (b"matroska", "h264", "aac", 48_000),
    ".webm": (b"webm", "vp9", "opus", 48_000),
}


def check_format(path):
    """The file is what its suffix says, tagged with the colours that it holds."""
    signature, picture, sound, rate = WRITTEN[path.suffix.lower()]
    assert signature in path.read_bytes()[:64]
    told = subprocess.run(
        [ffmpeg.executable(), "-i", path], capture_output=True, stdin=subprocess.DEVNULL, check=False
    ).stderr.decode()
    assert re.search(rf"Video: {picture}\b.* yuv420p\(tv, bt709[^)]*\), 64x48", told), told
    assert re.search(rf"Audio: {sound}\b.* {rate} Hz", told), told


@pytest.mark.parametrize("suffix", [*WRITTEN, ".MKV", ".WebM"])
def test_a_video_is_what_its_suffix_says(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"older")
    sink = VideoSink(path)
    sink.open(STREAM)
    for number in range(10):
        sink.write(frame(number))
    assert path.read_bytes() == b"older"
    sink.finish()
    assert names(tmp_path) == [path.name]
    check_format(path)
    capture = cv2.VideoCapture(str(path))
    assert sum(1 for _ in iter(lambda: capture.read()[0], False)) == 10
    assert probe_sound(path).duration == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize("make", [VideoSink, RecordingSink])
@pytest.mark.parametrize(
    "name", ["a.avi", "a.gif", "a.mp4.txt", "a", ".mp4", "a.", "a.wmv", "a.mp44", "a.ts"]
)
def test_a_format_that_is_not_written_is_refused_before_any_work(tmp_path, make, name):
    with pytest.raises(OutputError) as caught:
        make(tmp_path / name)
    assert name in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint == "Name a file that ends in .mp4, .mov, .mkv or .webm."
    assert names(tmp_path) == []


@pytest.mark.parametrize("make", [VideoSink, RecordingSink])
def test_an_ffmpeg_without_a_codec_is_told_before_any_work(tmp_path, monkeypatch, make):
    monkeypatch.setattr(ffmpeg, "listed", lambda _: frozenset({"libx264", "aac", "libvpx-vp9"}))
    make(tmp_path / "out.mkv")
    with pytest.raises(OutputError, match=r"out\.webm needs libopus, which this ffmpeg has not"):
        make(tmp_path / "out.webm")


def test_pictures_are_lossless_and_replace_numbered_ones_only(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("00000007.png", "notes.txt", "7.png"):
        (folder / name).write_bytes(b"older")
    sink = FramesSink(folder)
    sink.open(STREAM)
    for number in range(3):
        sink.write(frame(number))
    sink.finish()
    assert names(folder) == ["00000000.png", "00000001.png", "00000002.png", "7.png", "notes.txt"]
    for number in range(3):
        found = cv2.imread(str(folder / f"{number:08d}.png"))
        np.testing.assert_array_equal(found, frame(number).image)


def test_two_results_in_one_folder_do_not_meet(tmp_path):
    sinks = [VideoSink(tmp_path / "a.mp4"), VideoSink(tmp_path / "b.mp4"), FramesSink(tmp_path)]
    for sink in sinks:
        sink.open(STREAM)
        sink.write(frame(0))
    for sink in sinks:
        sink.finish()
    assert names(tmp_path) == ["00000000.png", "a.mp4", "b.mp4"]


def test_the_null_sink_counts():
    sink = NullSink()
    sink.open(STREAM)
    for number in range(3):
        sink.write(frame(number))
    sink.finish()
    assert (sink.frames, sink.samples) == (3, 3 * SAMPLES)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: VideoSink(folder / "nowhere" / "out.mp4"), "is not there"),
        (lambda folder: FramesSink(folder / "nowhere" / "out"), "is not there"),
        (lambda folder: VideoSink(folder / "file" / "out.mp4"), "is not there"),
        (VideoSink, "is a folder"),
        (lambda folder: VideoSink(folder / "fifo"), "is a pipe or a device"),
        (lambda folder: FramesSink(folder / "file"), "is a file"),
        (lambda folder: VideoSink(folder / ("x" * 300 + ".mp4")), "cannot be written"),
        (lambda folder: FramesSink(folder / ("x" * 300)), "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_any_work(tmp_path, make, words):
    (tmp_path / "file").touch()
    subprocess.run(["mkfifo", tmp_path / "fifo"], check=True)
    with pytest.raises(OutputError, match=words):
        make(tmp_path)
    assert names(tmp_path) == ["fifo", "file"]


def test_a_folder_that_goes_away_is_told(tmp_path):
    (tmp_path / "place").mkdir()
    sink = FramesSink(tmp_path / "place" / "out")
    (tmp_path / "place").rmdir()
    with pytest.raises(OutputError, match="No such file or directory"):
        sink.open(STREAM)
    sink.abort()


def test_the_longest_name_a_file_can_have_works(tmp_path):
    sink = VideoSink(tmp_path / ("x" * 251 + ".mp4"))
    sink.open(STREAM)
    sink.write(frame(0))
    sink.finish()
    assert names(tmp_path) == ["x" * 251 + ".mp4"]


def test_the_sound_itself_is_never_replaced(tmp_path):
    sound = tmp_path / "sound.wav"
    sound.write_bytes(b"sound")
    (tmp_path / "link.mp4").symlink_to(sound)
    for output in (sound, tmp_path / "link.mp4", tmp_path / "." / "sound.wav"):
        with pytest.raises(OutputError, match="is the sound itself"):
            check_not_input(output, sound)
    check_not_input(tmp_path / "out.mp4", sound)
    check_not_input(tmp_path / "out.mp4", tmp_path / "missing.wav")
    check_not_input(tmp_path / ("x" * 300), sound)


def test_sinks_say_what_they_are_called(tmp_path):
    path = tmp_path / "out.mp4"
    names = [
        (sink.name, sink.watched) for sink in (VideoSink(path), FramesSink(tmp_path / "out"), NullSink())
    ]
    assert names == [(str(path), False), (str(tmp_path / "out"), False), ("null", False)]
