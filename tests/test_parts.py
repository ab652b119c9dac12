"""Parts of a video that are joined: the file is as if it had been written in one piece."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from lives import read_back, run_ffmpeg, speech, write_sound

from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.media.containers import FILES
from musetalk_cli.media.encode import VideoEncoder
from musetalk_cli.sinks.parts import CodedPart, PartSink, join, joins_exactly
from musetalk_cli.types import Frame, FrameRequest, StreamFormat

RATE, COUNT = 22_050, 140
NONE = np.zeros((0, 1), np.float32)


def pictures():
    """Noise that moves: every frame needs the ones before it."""
    noise = np.random.default_rng(0).integers(0, 255, (48, 63, 3)).astype(np.uint8)
    return [np.roll(noise, shift, axis=1) for shift in range(COUNT)]


def write_parts(folder, suffix, stream, cuts):
    parts = []
    for number, (first, stop) in enumerate(pairwise(cuts)):
        sink = PartSink(folder / f"{number}.mp4", folder / f"joined{suffix}")
        sink.open(stream)
        for picture in pictures()[first:stop]:
            sink.write(Frame(FrameRequest(0, None, NONE, 0.0, 0.0, 0), picture, Fraction(0), 0.0))
        sink.finish()
        parts.append(CodedPart(folder / f"{number}.mp4", stop - first))
    return parts


def packets_of_sound(path):
    return run_ffmpeg("-v", "error", "-i", path, "-map", "0:a", "-c", "copy", "-f", "framemd5", "-").stdout


@pytest.mark.parametrize(
    ("suffix", "fps", "cuts"),
    [
        (".mp4", Fraction(25), (0, 16, 50, 51 + 16, COUNT)),
        pytest.param(".mp4", Fraction(2997, 100), (0, 47, COUNT), marks=pytest.mark.slow),
        pytest.param(".mov", Fraction(30_000, 1001), (0, 33, 66, COUNT), marks=pytest.mark.slow),
        pytest.param(".mkv", Fraction(24), (0, 33, COUNT), marks=pytest.mark.slow),
        (".webm", Fraction(30_000, 1001), (0, 33, COUNT)),
    ],
)
def test_what_is_joined_is_like_what_was_written_in_one_piece(tmp_path, suffix, fps, cuts):
    """Times and sound to the bit; each picture as it was coded; in a folder with a name like a URL."""
    folder = tmp_path / "a b?c#d'e%20"
    folder.mkdir()
    stream = StreamFormat(63, 48, fps, RATE, 1)
    sound = write_sound(folder / "a.wav", speech(float(COUNT / fps) + 0.02, RATE), rate=RATE)
    parts = write_parts(folder, suffix, stream, cuts)
    told = []
    join(parts, sound, folder / f"joined{suffix}", fps, lambda: told.append(True))
    encoder = VideoEncoder(folder / f"whole{suffix}", stream, FILES[suffix])
    with SoundReader(sound) as reader:
        samples = np.concatenate(list(reader.blocks(RATE)))
    bounds = [len(samples) * number // COUNT for number in range(COUNT + 1)]
    for picture, (begin, end) in zip(pictures(), pairwise(bounds), strict=True):
        encoder.write(picture, samples[begin:end])
    encoder.finish()
    whole, joined = read_back(folder / f"whole{suffix}"), read_back(folder / f"joined{suffix}")
    assert np.array_equal(whole.times, joined.times)
    assert np.array_equal(whole.sound, joined.sound)
    assert packets_of_sound(folder / f"whole{suffix}") == packets_of_sound(folder / f"joined{suffix}")
    coded = [run_ffmpeg("-i", part.path, "-f", "framemd5", "-").stdout.decode() for part in parts]
    rows = [line for text in coded for line in text.splitlines() if not line.startswith("#")]
    assert joined.hashes == [row.split(",")[5].strip() for row in rows]
    assert len(told) == len(samples) // RATE + 1
    assert not list(folder.glob(".musetalk-*"))


@pytest.fixture
def parts(tmp_path):
    stream = StreamFormat(63, 48, Fraction(25), RATE, 1)
    write_sound(tmp_path / "a.wav", speech(5.6, RATE), rate=RATE)
    return write_parts(tmp_path, ".mp4", stream, (0, 70, COUNT))


def assert_nothing_is_there(folder):
    assert not list(folder.glob(".musetalk-*"))
    assert not (folder / "joined.mp4").exists()


def test_parts_of_another_encoder_are_not_joined(parts, tmp_path):
    (tmp_path / "other").mkdir()
    stream = StreamFormat(63, 48, Fraction(25), RATE, 1)
    other = write_parts(tmp_path / "other", ".webm", stream, (0, 20))
    (tmp_path / "no part.mp4").write_bytes(bytes(range(256)))
    for wrong in (other[0], CodedPart(tmp_path / "no part.mp4", 20)):
        with pytest.raises(OutputError, match="were coded by different encoders") as error:
            join([parts[0], wrong], tmp_path / "a.wav", tmp_path / "joined.mp4", Fraction(25))
        assert "same ffmpeg" in error.value.hint
    assert_nothing_is_there(tmp_path)


def test_what_cannot_be_joined_leaves_nothing(parts, tmp_path):
    gone = CodedPart(tmp_path / "gone.mp4", 20)
    with pytest.raises(OutputError, match=r"A part of --output .* cannot be read"):
        join([parts[0], gone], tmp_path / "a.wav", tmp_path / "joined.mp4", Fraction(25))
    (tmp_path / "bad.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"bad.wav"):
        join(parts, tmp_path / "bad.wav", tmp_path / "joined.mp4", Fraction(25))
    with pytest.raises(OutputError, match="is the sound itself"):
        join(parts, tmp_path / "a.wav", tmp_path / "a.wav", Fraction(25))
    assert_nothing_is_there(tmp_path)


def test_what_a_join_that_was_killed_has_left_goes_with_the_next(parts, tmp_path):
    (tmp_path / f".musetalk-{'0' * 32}.partial").write_bytes(bytes(100))
    join(parts, tmp_path / "a.wav", tmp_path / "joined.mp4", Fraction(25))
    assert not list(tmp_path.glob(".musetalk-*"))


def test_a_part_that_is_given_up_is_removed(parts, tmp_path):
    sink = PartSink(tmp_path / "9.mp4", tmp_path / "joined.mp4")
    sink.open(StreamFormat(63, 48, Fraction(25), RATE, 1))
    sink.abort()
    assert not (tmp_path / "9.mp4").exists()


def test_rates_of_which_parts_begin_between_two_ticks_are_known():
    assert all(joins_exactly(Fraction(fps)) for fps in ("25", "29.97", "30000/1001", "119.999"))
    assert not joins_exactly(Fraction("25.000001"))
