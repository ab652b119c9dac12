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
    for name in ("mp3", "flac", "m4a", "ogg", "opus", "aac", "webm", "mkv", "mp2"):
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


@pytest.mark.parametrize("name", ["mp3", "flac", "m4a", "ogg", "opus", "aac", "webm", "mkv", "mp2"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.97])
def test_a_cut_off_sound_is_refused(encoded, tmp_path, name, part):
    data = encoded[name].read_bytes()
    path = tmp_path / f"cut.{name}"
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match=r"cut off|cannot be read|not a sound|no sound"):
        probe_sound(path)


@pytest.mark.parametrize("lost", [1, 2, 3, 500])
def test_a_wav_that_ends_early_is_read_as_far_as_it_goes_and_that_is_said_once(
    encoded, tmp_path, lost, caplog
):
    path = tmp_path / "cut.wav"
    path.write_bytes(encoded["wav"].read_bytes()[:-lost])
    assert probe_sound(path).samples == 48000 - (lost + 1) // 2
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"promises {lost} bytes more than there are" in said


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


def write_manifest(path):
    """It names a sound elsewhere, whose samples would be given before anything is said of the file."""
    secret = path.with_name("secret.m4a")
    sound = ["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac"]
    subprocess.run([ffmpeg.executable(), "-v", "error", *sound, secret], check=True)
    path.write_text(
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011" mediaPresentationDuration="PT1S">'
        '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1000">'
        f'<SegmentList duration="1"><SegmentURL media="{secret}"/></SegmentList>'
        "</Representation></AdaptationSet></Period></MPD>"
    )


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
        (write_manifest, "is a playlist"),
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


@pytest.mark.parametrize("make", [write_playlist, write_manifest])
def test_nothing_is_read_of_what_a_file_names(tmp_path, make):
    path = tmp_path / "x.bin"
    make(path)
    with pytest.raises(InputError, match="is a playlist"):
        SoundReader(path)


def test_a_name_no_file_can_have_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        probe_sound(tmp_path / ("x" * 300))


def test_an_ffmpeg_that_is_not_there_is_told(wav, monkeypatch):
    path = wav(noise(100))
    monkeypatch.setattr(ffmpeg, "executable", lambda: "/nowhere/ffmpeg")
    with pytest.raises(MuseTalkError, match="ffmpeg cannot be started from /nowhere/ffmpeg"):
        probe_sound(path)


def test_closing_early_ends_the_decoder(wav, started):
    reader = SoundReader(wav(noise(500_000)))
    next(reader.blocks(10))
    assert started()
    reader.close()
    reader.close()
    assert not started()


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
    blocks = [resampler.resample(sound[a:b]) for a, b in pairwise(bounds)]
    found = np.concatenate([*blocks, resampler.flush()])
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


def stated(data, size, riff=None):
    """A WAV whose header says another size of its sound, and of the whole."""
    at = data.index(b"data") + 4
    data = bytearray(data)
    data[at : at + 4] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", min(size + 36, 0xFFFF_FFFF) if riff is None else riff)
    return bytes(data)


@pytest.mark.parametrize("size", [0, 32_002, 64_000, 2_000_000_000, 0x7FFF_FFFF, 0xFFFF_FFFF])
@pytest.mark.parametrize("riff", [None, 0])
def test_a_wav_is_read_to_its_end_whatever_larger_size_its_header_states(wav, size, riff):
    path = wav(noise(16000), subtype="PCM_16")
    whole = read(path)
    path.write_bytes(stated(path.read_bytes(), size, riff))
    np.testing.assert_array_equal(read(path), whole)
    assert probe_sound(path).samples == 16000


@pytest.mark.parametrize(("size", "lines"), [(0, 0), (0xFFFF_FFFF, 0), (0x7FFF_F000, 0), (64_000, 1)])
def test_a_size_that_was_left_open_is_no_loss(wav, size, lines, caplog):
    path = wav(noise(16000), subtype="PCM_16")
    path.write_bytes(stated(path.read_bytes(), size))
    probe_sound(path)
    assert len(caplog.records) == lines


def test_a_wav_keeps_what_stands_behind_its_sound_out_of_it(wav):
    path = wav(noise(16000), subtype="PCM_16")
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 400) + bytes(range(200)) * 2)
    assert probe_sound(path).samples == 16000


def convert(source, path, *options):
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", source, *options, path]
    subprocess.run(list(map(str, command)), check=True)
    return path


@pytest.mark.parametrize("name", ["mp3", "wav", "flac", "ogg", "opus", "mkv", "webm", "aac", "mp2"])
@pytest.mark.parametrize("times", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_joined_files_are_read_to_the_last(encoded, tmp_path, name, times):
    path = tmp_path / f"joined.{name}"
    path.write_bytes(encoded[name].read_bytes() * times)
    one = probe_sound(encoded[name]).duration
    assert probe_sound(path).duration == pytest.approx(times * one, abs=0.13 * (times - 1))
    assert np.abs(read(path)[-16000:]).max() > 0.1


@pytest.mark.parametrize(
    "options", [["-write_xing", 0], ["-write_xing", 0, "-id3v2_version", 0], ["-q:a", 2]]
)
def test_joined_mp3s_of_every_kind_of_header(encoded, tmp_path, options):
    one = convert(encoded["wav"], tmp_path / "one.mp3", *options)
    two = tmp_path / "two.mp3"
    two.write_bytes(one.read_bytes() * 2)
    assert probe_sound(two).duration == pytest.approx(2 * probe_sound(one).duration, abs=0.13)
    two.write_bytes(two.read_bytes()[:-40])
    with pytest.raises(InputError, match="cut off"):
        probe_sound(two)


def test_joined_wavs_of_a_stream_are_split_where_the_next_begins(wav):
    first, second = wav(noise(8000), subtype="PCM_16"), wav(noise(6000, seed=1), 16000, "b.wav", "PCM_16")
    expected = np.concatenate([read(first), read(second)])
    first.write_bytes(b"".join(stated(path.read_bytes(), 0xFFFF_FFFF) for path in (first, second)))
    np.testing.assert_array_equal(read(first), expected)


def test_a_joined_wav_of_another_rate_comes_at_that_of_the_first(wav):
    first, second = wav(noise(8000), subtype="PCM_16"), wav(noise(24_000, 2), 48_000, "b.wav", "PCM_16")
    first.write_bytes(first.read_bytes() + second.read_bytes())
    info = probe_sound(first)
    assert (info.sample_rate, info.channels, info.samples) == (16_000, 1, 16_000)


def test_a_joined_m4a_is_refused_rather_than_read_in_part(encoded, tmp_path):
    path = tmp_path / "joined.m4a"
    path.write_bytes(encoded["m4a"].read_bytes() * 2)
    with pytest.raises(InputError, match="joined from several recordings"):
        probe_sound(path)


@pytest.fixture(scope="module")
def tone(tmp_path_factory):
    """Three seconds of a tone at 16 kHz."""
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    soundfile.write(path, 0.4 * np.sin(np.arange(48_000) * 0.2), 16_000, subtype="PCM_16")
    return path


def longest_silence(samples):
    """First sample of the longest stretch without sound, and the sample after its last."""
    heard = np.flatnonzero(np.abs(samples[:, 0]) > 0.05)
    place = int(np.argmax(np.diff(heard)))
    return heard[place] + 1, heard[place + 1]


@pytest.mark.parametrize("name", ["ogg", "opus", "m4a", "mkv", "webm", "mov", "ts"])
@pytest.mark.parametrize("gap", [0.7, pytest.param(12.0, marks=pytest.mark.slow)])
def test_a_gap_in_the_time_stamps_is_silence(tone, tmp_path, name, gap):
    options = ["-af", f"asetpts=PTS+gte(T\\,1)*{gap}/TB"]
    if name == "ts":
        options += ["-c:a", "aac"]
    path = convert(tone, tmp_path / f"gap.{name}", *options)
    info = probe_sound(path)
    assert info.duration == pytest.approx(3 + gap, abs=0.1)
    begin, end = (place / info.sample_rate for place in longest_silence(read(path)))
    assert begin == pytest.approx(1.0, abs=0.2)
    assert end == pytest.approx(1.0 + gap, abs=0.2)


@pytest.mark.parametrize("name", ["ogg", "mkv", "m4a"])
def test_packets_that_were_lost_are_silence(encoded, tmp_path, name):
    path = convert(
        encoded[name], tmp_path / f"lost.{name}", "-c", "copy",
        "-bsf:a", "noise=drop=gte(tb*pts\\,1)*lt(tb*pts\\,1.8)",
    )  # fmt: skip
    assert probe_sound(path).duration == pytest.approx(3, abs=0.02)
    assert not np.abs(read(path)[17_200:27_200]).any()


def test_an_overlap_is_trimmed(tone, tmp_path):
    path = convert(
        tone, tmp_path / "overlap.mkv", "-c:a", "pcm_s16le", "-bsf:a",
        "setts=ts=TS-gte(TS*TB\\,1.5)*0.5/TB",
    )  # fmt: skip
    assert probe_sound(path).duration == pytest.approx(2.5, abs=0.03)
    np.testing.assert_allclose(read(path)[:23_000], read(tone)[:23_000], atol=1e-4)


@pytest.mark.parametrize("name", ["mp4", "mkv", "ts", "mov"])
@pytest.mark.parametrize("late", [0.4, 1.5])
def test_a_videos_sound_begins_when_it_does_after_the_picture(tone, tmp_path, name, late):
    path = tmp_path / f"late.{name}"
    picture = ["-f", "lavfi", "-i", "color=s=32x32:r=25:d=5", "-itsoffset", str(late), "-i", str(tone)]
    command = [ffmpeg.executable(), "-v", "error", *picture, "-c:a", "aac", path]
    subprocess.run(list(map(str, command)), check=True)
    samples = read(path)
    onset = int(np.argmax(np.abs(samples[:, 0]) > 0.1)) / 16_000
    assert onset == pytest.approx(late, abs=0.08)
    assert probe_sound(path).duration == pytest.approx(3 + late, abs=0.1)


def test_a_sound_alone_begins_with_itself(tone, tmp_path):
    path = convert(tone, tmp_path / "late.mkv", "-af", "asetpts=PTS+5/TB")
    assert probe_sound(path).duration == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize(
    ("channels", "rate", "words"), [(64, 2_000_000_000, "2000000000 samples per second"), (1, 5, "5 samples")]
)
def test_what_a_header_says_is_bounded_before_anything_is_read(wav, channels, rate, words):
    path = wav(noise(4096, 64), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"fmt ") + 8
    data[at + 2 : at + 14] = struct.pack("<HIIH", channels, rate, rate * 2 % 2**32, 2 * channels)[:12]
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        SoundReader(path)


@pytest.mark.parametrize("value", [3e38, -1e20])
def test_a_sample_no_format_stores_is_refused_with_its_time(wav, value):
    samples = noise(16000)
    samples[8000] = value
    with pytest.raises(InputError, match=r"sample of -?\d\S+ at 0\.500 s"):
        probe_sound(wav(samples))


@pytest.mark.parametrize(
    "name", ["speech.sw", "speech.al", "speech.ub", "speech.pcm", "speech.s16", "speech"]
)
def test_raw_pcm_is_refused_and_told_where_it_can_go(tmp_path, name):
    path = tmp_path / name
    path.write_bytes((8000 * np.sin(np.arange(32_000) * 0.2)).astype("<i2").tobytes())
    with pytest.raises(InputError) as caught:
        probe_sound(path)
    assert "realtime --audio -" in caught.value.hint
