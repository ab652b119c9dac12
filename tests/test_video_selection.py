"""Which frames come: start, duration, rate, count, and how reading goes on where it stopped."""

import math
import subprocess
from fractions import Fraction

import cv2
import numpy as np
import pytest
from test_video import ffmpeg, picture

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg as media_ffmpeg
from musetalk_cli.media.video import Selection, read_frames

NUMBERED = "nullsrc=size=64x48:rate={rate},format=gbrp,geq=r='mod(N,256)':g='floor(N/256)':b=0"
LOSSLESS = ("-c:v", "libx264rgb", "-qp", "0", "-g", "30", "-bf", "3", "-preset", "medium")


def numbered(path, rate, count, *options, codec=LOSSLESS):
    """A clip without loss whose frames carry their number."""
    ffmpeg("-f", "lavfi", "-i", NUMBERED.format(rate=rate), "-frames:v", count, *codec, *options, path)
    return path


def numbers(source, selection=None, **options):
    """The numbers of the frames of a numbered clip, and the clip."""
    with read_frames(source, *([selection] if selection else []), **options) as video:
        return [number_of(frame) for frame in video], video


def number_of(frame):
    assert (frame == frame[0, 0]).all()
    return int(frame[0, 0, 2]) + 256 * int(frame[0, 0, 1])


def nearest(times, rate, length):
    """What is shown at each of the frames of a rate, where stamps go to the nearest one."""
    ticks = [math.floor(time * rate + Fraction(1, 2)) for time in times]
    total = math.floor(length * rate + Fraction(1, 2))
    return [max(k for k, tick in enumerate(ticks) if tick <= frame) for frame in range(total)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of 1500 frames at 25 per second in several containers, by the containers' suffix."""
    folder = tmp_path_factory.mktemp("clips")
    numbered(folder / "clip.mp4", 25, 1500)
    ffmpeg("-i", folder / "clip.mp4", "-c", "copy", folder / "clip.mkv")
    numbered(folder / "clip.avi", 25, 1500, codec=("-c:v", "ffv1", "-g", "30"))
    return {suffix: folder / f"clip.{suffix}" for suffix in ("mp4", "mkv", "avi")}


@pytest.fixture(scope="module")
def short_clips(tmp_path_factory):
    """Clips of 53 frames, by their rate."""
    folder = tmp_path_factory.mktemp("short")
    return {
        rate: numbered(folder / f"{number}.mkv", rate, 53) for number, rate in enumerate(("25", "30000/1001"))
    }


@pytest.fixture(scope="module")
def varying(tmp_path_factory):
    """A clip whose frames come 1 to 100 ms apart, 30 in a second, and their times in seconds."""
    clip = tmp_path_factory.mktemp("varying") / "clip.mkv"
    chosen = "lt(mod(n*n*n+5*n,1009),30)"
    graph = f"nullsrc=size=64x48:rate=1000,select='{chosen}'," + NUMBERED.partition(",")[2]
    ffmpeg("-f", "lavfi", "-i", graph, "-t", 23, "-fps_mode", "passthrough", "-enc_time_base", "1/1000",
           *LOSSLESS, clip)  # fmt: skip
    return clip, [Fraction(n, 1000) for n in range(23_000) if (n * n * n + 5 * n) % 1009 < 30]


@pytest.mark.parametrize(
    ("start", "duration", "first", "stop", "suffix"),
    [
        pytest.param(*part, suffix, marks=[] if usual else [pytest.mark.slow])
        for suffix in ("mp4", "mkv", "avi")
        for usual, *part in (
            (False, "0", None, 0, 1500),
            (False, "0.04", "0.08", 1, 3),
            (True, "0.05", "1", 2, 27),
            (True, "9.999", "0.5", 250, 263),
            (suffix == "mp4", "31.24", "1.2", 781, 811),
            (False, "1234.5/25", "0.001", 1235, 1236),
            (True, "59.96", "10", 1499, 1500),
            (suffix == "mp4", "59.97", None, 1499, 1500),
        )
    ],
)
def test_start_and_duration_are_exact(clips, suffix, start, duration, first, stop):
    begin = Fraction("2469/50") if "/" in start else Fraction(start)
    selection = Selection(begin, Fraction(duration) if duration else None)
    got, video = numbers(clips[suffix], selection)
    assert got == list(range(first, stop))
    assert (video.fps, video.expected, video.notes) == (25, stop - first, ())


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_late_start_is_not_decoded_from_the_beginning(clips, suffix, monkeypatch):
    commands = []
    real = subprocess.Popen

    def record(command, **options):
        commands.append(command)
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", record)
    got, _ = numbers(clips[suffix], Selection(Fraction(45), Fraction(1), fps=Fraction(50)))
    assert got == [1125 + number // 2 for number in range(50)]
    assert ("-ss" in commands[-1]) == (suffix != "avi")


@pytest.mark.slow
def test_where_a_stream_cannot_be_entered_in_its_middle(tmp_path):
    open_groups = ("-x264-params", "open-gop=1:keyint=400:min-keyint=200:scenecut=0:bframes=4")
    clip = numbered(tmp_path / "open.mp4", 25, 1500, *open_groups)
    for second in (17, 26, 33, 42):
        got, _ = numbers(clip, Selection(Fraction(second), max_frames=3))
        assert got == [second * 25 + number for number in range(3)]


def test_a_seek_that_fails_is_made_up_for(clips, monkeypatch):
    start = media_ffmpeg.start
    sought = []

    def breaking(arguments, **pipes):
        if "-ss" in arguments:
            sought.append(arguments)
            arguments = ["-f", "none", *arguments]
        return start(arguments, **pipes)

    monkeypatch.setattr(media_ffmpeg, "start", breaking)
    assert numbers(clips["mp4"], Selection(Fraction(40), max_frames=2))[0] == [1000, 1001]
    assert sought


@pytest.mark.slow
def test_a_clip_whose_time_does_not_begin_at_zero(tmp_path):
    clip = numbered(tmp_path / "late.mkv", 25, 500, "-output_ts_offset", "7.3")
    sound = ("-f", "lavfi", "-i", "sine=duration=25")
    ffmpeg(*sound, "-itsoffset", "0.52", "-i", clip, "-map", "0", "-map", "1", "-c:v", "copy",
           "-copyts", tmp_path / "both.mkv")  # fmt: skip
    for path in (clip, tmp_path / "both.mkv"):
        for start in (0, 3, 15):
            assert numbers(path, Selection(Fraction(start), max_frames=2))[0] == [start * 25, start * 25 + 1]


@pytest.mark.parametrize(
    ("stored", "rate"),
    [
        *(("25", rate) for rate in ("1", "12.5", "24000/1001", "25", "30", "120")),
        *(("30000/1001", rate) for rate in ("7", "24", "25", "60000/1001")),
        *(
            pytest.param(stored, rate, marks=pytest.mark.slow)
            for stored, rates in (
                ("25", ("7", "24", "50", "60000/1001")),
                ("30000/1001", ("1", "12.5", "24000/1001", "30", "50", "120")),
            )
            for rate in rates
        ),
    ],
)
def test_a_constant_rate_is_resampled_to_what_is_shown(short_clips, rate, stored):
    clip = short_clips[stored]
    rate, stored = Fraction(rate), Fraction(stored)
    got, video = numbers(clip, Selection(fps=rate))
    shown = [math.floor(number * stored / rate) for number in range(math.ceil(53 * rate / stored))]
    assert got == shown
    assert (video.fps, video.expected) == (rate, len(shown))
    assert bool(video.notes) == (rate != stored)
    part, video = numbers(clip, Selection(Fraction(1), Fraction(1, 2), rate))
    first, stop = math.ceil(rate), math.ceil(rate * Fraction(3, 2))
    assert part == (shown[first:stop] or shown[first : first + 1])
    assert video.expected == len(part)


@pytest.mark.parametrize(
    ("rate", "start"),
    [
        (None, "0"), (None, "20"), ("30000/1001", "0.75"), ("12.5", "20"),
        *(pytest.param(*case, marks=pytest.mark.slow)
          for case in ((None, "0.75"), ("30", "0"), ("60", "0.75"))),
    ],
)  # fmt: skip
def test_a_varying_rate_is_resampled_so_that_times_hold(varying, start, rate):
    clip, times = varying
    start, rate = Fraction(start), rate and Fraction(rate)
    got, video = numbers(clip, Selection(start, fps=rate))
    assert abs(video.fps - (rate or (len(times) - 2) / (times[-2] - times[0]))) <= Fraction(5, 1000)
    shown = nearest(times, video.fps, times[-1] + 1)[math.ceil(start * video.fps) :]
    assert got == shown[: len(got)]
    assert video.expected == len(got)
    assert abs(Fraction(len(got)) / video.fps - (times[-1] - start)) < Fraction(1, 10)
    assert "rate varies" in video.notes[0]
    assert ("--fps" in video.notes[0]) == (rate is None)
    part, video = numbers(clip, Selection(start, Fraction(1), rate))
    assert part == shown[: len(part)]
    assert len(part) == video.expected == math.ceil((start + 1) * video.fps) - math.ceil(start * video.fps)


@pytest.mark.parametrize(
    ("last", "suffix"),
    [
        *(("1/50", "mp4"), ("3", "mp4"), ("1/50", "ts"), ("3", "nut"), ("3", "webm")),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("3", "ts"), ("1/50", "nut"), ("1/50", "webm"))
        ),
    ],
)
def test_how_long_the_last_frame_is_shown(tmp_path, suffix, last):
    path = tmp_path / f"clip.{suffix}"
    codec = ("-c:v", "libvpx-vp9") if suffix == "webm" else LOSSLESS
    times = f"setpts='if(lt(N,9),N*N/50,2+{last})/TB'"
    ffmpeg("-f", "lavfi", "-i", f"testsrc=size=64x48:rate=25,{times}", "-frames:v", 10, "-fps_mode",
           "passthrough", *codec, "-pix_fmt", "yuv420p", path)  # fmt: skip
    for rate in (1, 7, 60):
        with read_frames(path, Selection(fps=Fraction(rate))) as video:
            count = sum(1 for _ in video)
        assert count == video.expected
        assert count >= math.floor((Fraction(2) + Fraction(last) - Fraction(81, 50)) * rate)


@pytest.mark.parametrize(
    "selection",
    [
        Selection(Fraction(13), Fraction(1), fps=Fraction(50)),
        pytest.param(Selection(), marks=pytest.mark.slow),
        pytest.param(Selection(max_frames=50), marks=pytest.mark.slow),
        pytest.param(Selection(Fraction(2), fps=Fraction(10), max_size=32), marks=pytest.mark.slow),
    ],
)
def test_reading_goes_on_where_it_stopped(clips, selection):
    def read(count):
        with read_frames(clips["mp4"], selection, skip=count) as video:
            assert (video.width, video.height) == ((32, 24) if selection.max_size else (64, 48))
            return [frame for frame, _ in zip(video, range(200), strict=False)], video.expected

    whole, expected = read(0)
    for skip in (1, 2, 30, 49, 50, 51, 90):
        rest, again = read(skip)
        assert again == expected
        count = min(len(rest), len(whole) - min(skip, len(whole)))
        assert len(rest) == min(expected, 200 + skip) - skip if expected > skip else not rest
        np.testing.assert_array_equal(rest[:count], whole[skip : skip + count])


def test_a_folder_goes_on_where_it_stopped(tmp_path):
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    selection = Selection(fps=Fraction(40), max_frames=7)
    whole = list(read_frames(tmp_path, selection))
    assert len(whole) == 7
    for skip in (1, 3, 6, 7, 8):
        np.testing.assert_array_equal(list(read_frames(tmp_path, selection, skip=skip)), whole[skip:])


@pytest.mark.parametrize("rate", ["10", "24000/1001", "25", "30", "75"])
def test_a_folder_is_a_clip_of_25_frames_per_second(tmp_path, rate):
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    rate = Fraction(rate)
    shown = [math.floor(number * 25 / rate) for number in range(math.ceil(10 * rate / 25))]
    with read_frames(tmp_path, Selection(fps=rate)) as video:
        assert (video.fps, video.expected, bool(video.notes)) == (rate, len(shown), rate != 25)
        np.testing.assert_array_equal(list(video), [picture(number) for number in shown])
    first, stop = math.ceil(rate / 10), math.ceil(rate * 3 / 10)
    with read_frames(tmp_path, Selection(Fraction(1, 10), Fraction(1, 5), rate)) as video:
        np.testing.assert_array_equal(list(video), [picture(number) for number in shown[first:stop]])


def test_one_image_is_one_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "face.png"), picture(0))
    with read_frames(tmp_path / "face.png", Selection(duration=Fraction(9), fps=Fraction(60))) as video:
        assert (video.fps, video.expected) == (60, 1)
        np.testing.assert_array_equal(list(video), [picture(0)])


@pytest.mark.slow
def test_a_start_past_the_end(clips, tmp_path):
    for suffix in ("mp4", "avi"):
        with pytest.raises(InputError, match=r"is 60 s long, but --start is 60\.") as caught:
            read_frames(clips[suffix], Selection(Fraction(60)))
        assert caught.value.hint
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture(number))
    with pytest.raises(InputError, match=r"is 0\.4 s long, but --start is 0\.5"):
        read_frames(tmp_path, Selection(Fraction(1, 2)))


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--start", {"start": Fraction(-1, 25)}),
        ("--duration", {"duration": Fraction(0)}),
        ("--fps", {"fps": Fraction(1, 2)}),
        ("--fps", {"fps": Fraction(121)}),
        ("--max-frames", {"max_frames": 0}),
        ("--max-size", {"max_size": 31}),
    ],
)
def test_nonsense_is_refused(option, values):
    with pytest.raises(InputError, match=option) as caught:
        Selection(**values)
    assert caught.value.hint


@pytest.mark.slow
def test_the_largest_size_applies_to_the_longer_side(clips, tmp_path):
    cv2.imwrite(str(tmp_path / "tall.png"), picture(1, (50, 101)))
    for source, size, whole in (
        (clips["mp4"], (40, 30), (64, 48)),
        (tmp_path / "tall.png", (20, 40), (50, 101)),
    ):
        for limit, wanted in ((40, size), (101, whole), (4000, whole)):
            with read_frames(source, Selection(max_size=limit, max_frames=1)) as video:
                frame = next(iter(video))
                assert (video.width, video.height) == wanted == (frame.shape[1], frame.shape[0])
                scaled = f"scaled down from {whole[0]}x{whole[1]} to {wanted[0]}x{wanted[1]}"
                assert any(scaled in note for note in video.notes) == (wanted != whole)


def test_smaller_frames_show_the_same(tmp_path):
    clip = tmp_path / "clip.mkv"
    ffmpeg(
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=5:duration=1",
        "-c:v",
        "ffv1",
        "-pix_fmt",
        "bgr0",
        clip,
    )
    with read_frames(clip) as video:
        large = next(iter(video))
    with read_frames(clip, Selection(max_size=80)) as video:
        small = next(iter(video))
    wanted = cv2.resize(large, (80, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - wanted).mean() < 6
