"""What is found out about a video before it is decoded: its rate above all."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_video import ffmpeg

from musetalk_cli.errors import InputError
from musetalk_cli.media.cadence import cadence, exact_rate
from musetalk_cli.media.probe import probe
from musetalk_cli.media.video import read_frames

RATES = [Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60), Fraction(15)]
TICKS = [Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 12800), Fraction(1, 600), Fraction(1, 100)]


def stamps(times, tick, rounding=np.round):
    return rounding(np.array([float(time / tick) for time in times])).astype(np.int64)


def test_declared_rates():
    assert exact_rate(Fraction("29.97")) == Fraction(30000, 1001)
    assert exact_rate(Fraction("23.98")) == Fraction(24000, 1001)
    assert exact_rate(Fraction("59.94")) == Fraction(60000, 1001)
    assert exact_rate(Fraction(25)) == 25
    assert exact_rate(Fraction("12.5")) == Fraction(25, 2)


@given(
    st.sampled_from(RATES),
    st.sampled_from(TICKS),
    st.integers(1, 4000),
    st.integers(-(10**6), 10**9),
    st.sampled_from([np.floor, np.ceil, np.round]),
)
def test_rounded_times_are_a_constant_rate(rate, tick, count, begin, rounding):
    found = cadence(begin + stamps([n / rate for n in range(count)], tick, rounding), tick, rate)
    assert (found.constant, found.rate) == (True, rate)


@pytest.mark.parametrize("rate", RATES)
def test_a_rate_is_found_without_being_declared(rate):
    for declared in (None, Fraction(1000), rate / 2):
        found = cadence(stamps([n / rate for n in range(3000)], TICKS[1]), TICKS[1], declared)
        assert (found.constant, found.rate) == (True, rate)


def test_a_rate_that_nobody_uses():
    found = cadence(np.arange(500) * 37, Fraction(1, 1000), Fraction(30))
    assert found.constant
    assert found.rate == Fraction(1000, 37)
    clock = cadence(np.arange(100_000) * 3017 + np.arange(100_000) // 7, Fraction(1, 90_000), Fraction(30))
    assert clock.constant
    assert abs(clock.rate - Fraction(90_000, 1) / Fraction(21120, 7)) < Fraction(1, 10**6)
    assert clock.rate.numerator < 10**9


def test_an_odd_last_frame_changes_nothing():
    times = np.arange(100) * 40
    for last in (4001, 4700, 60_000):
        found = cadence(np.append(times, last), Fraction(1, 1000), Fraction(25))
        assert (found.constant, found.rate) == (True, 25)


def test_a_small_jitter_is_no_varying_rate():
    jitter = np.random.default_rng(0).integers(-140, 140, 1000)
    found = cadence(np.arange(1000) * 3000 + jitter - jitter[0], TICKS[1], Fraction(30))
    assert (found.constant, found.rate) == (True, 30)


@pytest.mark.parametrize("lost", [1, 5])
def test_lost_frames_are_a_varying_rate(lost):
    times = np.delete(np.arange(1000) * 3000, range(400, 400 + lost))
    found = cadence(times, TICKS[1], Fraction(30))
    assert (found.constant, found.rate) == (False, 30)
    assert found.slowest == Fraction(30, lost + 1)
    assert found.fastest == 30


def test_rates_of_varying_videos():
    def of(steps, tick=Fraction(1, 1000)):
        return cadence(np.concatenate([[0], np.cumsum(steps)]), tick, Fraction(30))

    assert of([33, 34, 33] * 100 + [67] * 30).rate == 30
    assert of([40] * 10 + [400] * 90).rate == Fraction("2.75")
    assert of([40] * 80 + [900] * 20).rate == Fraction("4.88")
    assert of([20, 60] * 100).rate == 25
    assert of([33, 50] * 100).rate == 24
    assert of([33, 50] * 100).constant is False
    assert of([1] * 300 + [2] * 200).rate == 120
    assert of([5000, 3000] * 20).rate == 1


@pytest.mark.parametrize(
    ("suffix", "rate"),
    [
        pytest.param(suffix, rate, marks=[] if place % 3 == turn else [pytest.mark.slow])
        for place, suffix in enumerate(["mp4", "mov", "mkv", "webm", "ts", "avi", "flv", "gif"])
        for turn, rate in enumerate(["25", "30", "24000/1001"])
    ],
)
def test_every_container_says_its_rate_and_its_count(tmp_path, suffix, rate):
    path = tmp_path / f"clip.{suffix}"
    ffmpeg("-f", "lavfi", "-i", f"testsrc=size=64x48:rate={rate}", "-frames:v", 47, path)
    found = probe(path)
    with read_frames(path) as video:
        assert any("black" in note for note in video.notes) == (suffix == "gif")
        assert not any("resampled" in note for note in video.notes)
        assert sum(1 for _ in video) == found.count == video.expected == 47
    assert found.cadence.constant
    assert found.cadence.rate == Fraction(rate)
    assert found.seconds == 47 / Fraction(rate)
    assert (found.width, found.height, found.alpha) == (64, 48, suffix == "gif")


def test_packets_without_times(tmp_path):
    path = tmp_path / "raw.h264"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-frames:v", 30, "-bf", 2, path)
    found = probe(path)
    assert (found.begin, found.count, found.cadence.constant) == (None, 30, True)
    with read_frames(path) as video:
        assert (sum(1 for _ in video), video.fps) == (30, 25)


def test_frames_that_an_edit_hides_are_not_counted(tmp_path):
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-frames:v", 60, "-g", 20, tmp_path / "whole.mp4"
    )
    ffmpeg("-ss", "0.6", "-i", tmp_path / "whole.mp4", "-c", "copy", tmp_path / "cut.mp4")
    with read_frames(tmp_path / "cut.mp4") as video:
        assert sum(1 for _ in video) == video.expected == 45
        assert not any("resampled" in note for note in video.notes)


def test_sound_is_no_video(tmp_path):
    sound = ("-f", "lavfi", "-i", "sine=duration=0.2")
    ffmpeg(*sound, tmp_path / "sound.wav")
    ffmpeg(*sound, "-f", "lavfi", "-i", "testsrc=size=64x48", "-frames:v", 1, "-c:v", "mjpeg",
           "-disposition:v", "attached_pic", tmp_path / "song.mp3")  # fmt: skip
    for name in ("sound.wav", "song.mp3"):
        with pytest.raises(InputError, match=f"{name} holds sound but no video") as caught:
            read_frames(tmp_path / name)
        assert caught.value.hint


def test_colours_and_shape_that_are_declared(tmp_path):
    path = tmp_path / "clip.mkv"
    params = "setparams=color_trc=arib-std-b67:color_primaries=bt2020:colorspace=bt2020nc,setsar=12/11"
    ffmpeg("-f", "lavfi", "-i", f"testsrc=size=64x48:rate=5:duration=1,format=yuv420p10,{params}", path)
    found = probe(path)
    assert (found.matrix, found.primaries, found.transfer) == ("bt2020nc", "bt2020", "arib-std-b67")
    assert (found.aspect, found.codec) == (Fraction(12, 11), "h264")
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1,format=yuv420p", "-colorspace", "bt709",
           "-color_trc", "bt709", "-color_primaries", "bt709", path)  # fmt: skip
    assert probe(path).alpha is False
