import struct
import subprocess
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.errors import InputError, MuseTalkError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.audio import SoundReader, probe_sound
from musetalk_cli.media.resample import StreamResampler


def noise(samples, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-0.4, 0.4, (samples, channels)).astype(np.float32)


def read(path):
    with SoundReader(path) as reader:
        return np.concatenate(list(reader.blocks(1000)))


@pytest.fixture
def wav(tmp_path):
    """Writes a WAV and returns its path."""

    def write(samples, rate=16000, name="sound.wav", subtype="FLOAT"):
        path = tmp_path / name
        soundfile.write(path, samples, rate, subtype=subtype)
        return path

    return write


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Three seconds of noise in every common format, by extension."""
    folder = tmp_path_factory.mktemp("encoded")
    soundfile.write(folder / "sound.wav", noise(48000), 16000, subtype="PCM_16")
    for name in ("mp3", "flac", "m4a", "ogg", "opus", "aac"):
        command = [ffmpeg.executable(), "-v", "error", "-i", folder / "sound.wav", folder / f"sound.{name}"]
        subprocess.run(command, check=True)
    return {path.suffix[1:]: path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("rate", "channels", "subtype", "exact"),
    [
        (8000, 1, "FLOAT", True),
        (16000, 1, "PCM_16", False),
        (44100, 2, "FLOAT", True),
        (48000, 6, "PCM_24", False),
        (192000, 2, "FLOAT", True),
    ],
)
def test_samples_come_at_their_own_rate_and_channels(wav, rate, channels, subtype, exact):
    samples = noise(rate // 4, channels)
    path = wav(samples, rate, subtype=subtype)
    info = probe_sound(path)
    assert (info.sample_rate, info.channels, info.samples) == (rate, channels, rate // 4)
    assert info.duration == 0.25
    np.testing.assert_allclose(read(path), samples, rtol=0, atol=0 if exact else 2**-15)


def test_blocks_have_the_wanted_length_but_the_last(wav):
    with SoundReader(wav(noise(2500))) as reader:
        assert [len(block) for block in reader.blocks(1000)] == [1000, 1000, 500]


@pytest.mark.parametrize("name", ["mp3", "flac", "m4a", "ogg", "opus", "wav"])
def test_other_formats_keep_the_length(encoded, name):
    assert probe_sound(encoded[name]).duration == pytest.approx(3.0, abs=0.001)


@pytest.mark.parametrize(
    "name",
    ["with space.wav", "q'uo\"te.wav", "-dash.wav", "%03d.wav", "üñí→.wav", "a:b.wav", "new\nline.wav"],
)
def test_no_name_is_special(wav, name):
    assert probe_sound(wav(noise(100), name=name)).samples == 100


def test_a_wav_that_was_written_to_a_pipe_is_whole(wav):
    path = wav(noise(16000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[data.index(b"data") + 4 : data.index(b"data") + 8] = b"\xff" * 4
    path.write_bytes(data)
    assert probe_sound(path).samples == 16000


@pytest.mark.parametrize("name", ["wav", "mp3", "flac", "m4a", "aac"])
@pytest.mark.parametrize("part", [0.3, 0.6])
def test_a_cut_off_sound_is_refused(encoded, tmp_path, name, part):
    data = encoded[name].read_bytes()
    path = tmp_path / f"cut.{name}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"cut off|cannot be read|not a sound"):
        probe_sound(path)


@pytest.mark.parametrize("lost", [1, 2, 3, 500])
def test_the_last_bytes_of_a_wav_are_missed(encoded, tmp_path, lost):
    path = tmp_path / "cut.wav"
    path.write_bytes(encoded["wav"].read_bytes()[:-lost])
    with pytest.raises(InputError, match="cut off"):
        probe_sound(path)


@pytest.mark.parametrize("name", ["mp3", "flac", "m4a", "ogg", "opus", "aac"])
def test_a_hole_in_the_middle_is_refused(encoded, tmp_path, name):
    data = bytearray(encoded[name].read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    path = tmp_path / f"hole.{name}"
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        probe_sound(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_is_refused_with_its_time(wav, value):
    samples = noise(16000, 2)
    samples[4000, 1] = value
    with pytest.raises(InputError, match=r"not a finite number at 0\.250 s"):
        probe_sound(wav(samples))


def write_nothing(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("these words are no sound\n" * 50)


def write_no_samples(path):
    soundfile.write(path, noise(0), 16000, format="WAV")


def write_header_only(path):
    path.write_bytes(b"RIFF\0\0\0\0WAVE")


def write_picture(path):
    import cv2

    path.write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())


def write_mute_video(path):
    source = ["-f", "lavfi", "-i", "color=s=32x32:d=0.2", "-f", "mp4"]
    subprocess.run([ffmpeg.executable(), "-v", "error", *source, path], check=True)


def write_playlist(path):
    soundfile.write(path.with_name("part.wav"), noise(1000), 16000)
    path.write_text("ffconcat version 1.0\nfile part.wav\n")


def make_folder(path):
    path.mkdir()


def make_fifo(path):
    import os

    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no sound at"),
        (write_nothing, "is empty"),
        (write_text, "is not a sound that can be read: Invalid data"),
        (write_no_samples, "holds no samples"),
        (write_header_only, "is not a sound that can be read|holds no samples"),
        (write_picture, "holds no sound"),
        (write_mute_video, "holds no sound"),
        (write_playlist, "is a playlist"),
        (make_folder, "is a folder"),
        (make_fifo, "is a pipe or a device"),
    ],
)
def test_what_is_no_sound_is_told_in_one_sentence(tmp_path, make, words):
    path = tmp_path / "x.bin"
    make(path)
    with pytest.raises(InputError, match=words) as caught:
        probe_sound(path)
    assert "\n" not in caught.value.message


def test_a_name_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        probe_sound(tmp_path / ("x" * 300))


def test_an_ffmpeg_that_is_not_there_is_told(wav, monkeypatch):
    path = wav(noise(100))
    monkeypatch.setattr(ffmpeg, "executable", lambda: "/nowhere/ffmpeg")
    with pytest.raises(MuseTalkError, match="ffmpeg cannot be started from /nowhere/ffmpeg"):
        probe_sound(path)


def test_closing_early_ends_the_decoder(wav):
    reader = SoundReader(wav(noise(500_000)))
    next(reader.blocks(10))
    reader.close()
    reader.close()
    assert reader._process.returncode is not None


def whole(samples, rate):
    """Librosa's way: channel mean, soxr HQ over the whole, then `ceil` length by padding or cutting."""
    mono = samples.mean(axis=1, dtype=np.float32)
    out = mono if rate == 16000 else soxr.resample(mono, rate, 16000, quality="HQ")
    length = -(-len(samples) * 16000 // rate)
    return np.pad(out, (0, max(0, length - len(out))))[:length]


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 192000]),
    samples=st.integers(1, 30_000),
    channels=st.integers(1, 3),
    cuts=st.lists(st.floats(0, 1), max_size=12),
)
def test_streamed_resampling_equals_that_of_the_whole(rate, samples, channels, cuts):
    sound = noise(samples, channels, seed=samples)
    bounds = [0, *sorted(int(cut * samples) for cut in cuts), samples]
    resampler = StreamResampler(rate)
    pieces = [resampler.feed(sound[a:b]) for a, b in pairwise(bounds)]
    found = np.concatenate([*pieces, resampler.finish()])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, whole(sound, rate))


def test_messages_keep_the_first_and_the_last_lines(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(1000)))
    lines = ffmpeg.Messages(path.open("rb"), keep=3).lines()
    assert lines == ["line 0", "line 1", "line 2", "line 997", "line 998", "line 999"]


def test_the_reason_is_the_line_that_says_most(tmp_path):
    path = tmp_path / "log"
    path.write_text(
        "[info] Input #0, x\n[mov @ 0x1] [error] moov atom not found\n"
        "[in#0 @ 0x2] [error] Error opening input: Invalid data\n"
        "[fatal] Error opening input files: Invalid data\n[info] Conversion failed!\n"
    )
    assert ffmpeg.Messages(path.open("rb")).reason() == "moov atom not found"
    path.write_text("Error opening input files: Invalid data found\n")
    assert ffmpeg.Messages(path.open("rb")).reason() == "Invalid data found"
    path.write_text("")
    assert ffmpeg.Messages(path.open("rb")).reason() == "ffmpeg gave no reason"


def test_a_declared_length_is_believed_for_wav_only_where_it_is_stated(wav):
    path = wav(noise(16000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 64000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"cut off after 1\.00 s"):
        probe_sound(path)
