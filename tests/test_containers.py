import contextlib
import os
import subprocess
import threading

import numpy as np
import pytest
import soundfile
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.sources import PcmSource
from musetalk_cli.sources.containers import recognise
from musetalk_cli.sources.s16 import PcmDecoder

FORMATS = {
    "wav": "WAV", "w64": "WAV", "mp3": "MP3", "mp2": "MP2", "aac": "AAC", "flac": "FLAC", "ogg": "Ogg",
    "opus": "Ogg", "m4a": "MP4 or M4A", "mov": "MP4 or M4A", "mkv": "Matroska or WebM",
    "webm": "Matroska or WebM", "aiff": "AIFF", "caf": "CAF", "au": "AU", "wma": "WMA",
    "flv": "FLV", "wv": "WavPack", "tta": "TTA", "voc": "VOC", "avi": "AVI", "amr": "AMR",
}  # fmt: skip


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A second of a tone in every container, by suffix."""
    folder = tmp_path_factory.mktemp("containers")
    tone = folder / "tone.wav"
    soundfile.write(tone, 0.4 * np.sin(np.arange(44_100) * 0.05), 44_100, subtype="PCM_16")
    for name in FORMATS:
        options = ["-ar", "8000"] if name == "amr" else []
        command = [ffmpeg.executable(), "-v", "error", "-i", tone, *options, folder / f"sound.{name}"]
        subprocess.run(command, check=True)
    bare = ["-write_xing", "0", "-id3v2_version", "0", folder / "bare.mp3"]
    subprocess.run([ffmpeg.executable(), "-v", "error", "-i", tone, *bare], check=True)
    return folder


def spoken(data, cut=None):
    """What a pipe that carries `data` is heard as."""
    read_end, write_end = os.pipe()

    def write():
        with contextlib.suppress(BrokenPipeError):
            for begin in range(0, len(data), cut or len(data)):
                os.write(write_end, data[begin : begin + (cut or len(data))])
        os.close(write_end)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        blocks = [block.samples for block in PcmSource(read_end, 16_000, FakeClock())]
        return np.concatenate(blocks)[:, 0]
    finally:
        os.close(read_end)
        writer.join(10)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("cut", [None, 5])
def test_a_container_on_a_pipe_is_refused_by_its_name_and_told_what_decodes_it(encoded, name, cut):
    data = (encoded / f"sound.{name}").read_bytes()[:6000]
    with pytest.raises(InputError, match=f"^{FORMATS[name]} came from standard input") as caught:
        spoken(data, cut)
    assert "ffmpeg -i - -f s16le -ar 16000 -ac 1 -" in caught.value.hint


def test_an_mp3_that_begins_with_its_first_frame_is_known_too(encoded):
    data = (encoded / "bare.mp3").read_bytes()
    assert data[0] == 0xFF
    with pytest.raises(InputError, match=r"^MP3 came"):
        spoken(data[:6000])


@pytest.mark.parametrize(
    "numbers",
    [
        np.zeros(3000), np.full(3000, -1), np.full(3000, -1025), np.full(3000, -15),
        np.tile([-1025, -28_528], 1500), np.tile([0x47, 0], 1500), np.arange(-1500, 1500),
    ],
)  # fmt: skip
def test_raw_sound_that_begins_like_a_container_is_heard(numbers):
    data = numbers.astype("<i2").tobytes()
    np.testing.assert_array_equal(spoken(data) * 32_768, numbers)
    np.testing.assert_array_equal(spoken(data, 7) * 32_768, numbers)


@pytest.mark.parametrize("data", [b"RIFF", b"\xff\xfb", b"OggX", b"\xff\xfb\x90\x64" * 2])
def test_what_might_have_become_a_container_is_heard_at_the_end(data):
    np.testing.assert_array_equal(spoken(data), np.frombuffer(data, "<i2").astype(np.float32) / 32_768)


@pytest.mark.parametrize("level", [1, 3, 20, 2000])
def test_noise_of_any_level_is_no_container(level):
    random = np.random.default_rng(level)
    for _ in range(400):
        numbers = random.integers(-level, level + 1, 4000).astype("<i2")
        assert recognise(numbers.tobytes()) == ""


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=40), st.integers(1, 3))
def test_samples_do_not_depend_on_how_the_bytes_were_cut(data, sizes, channels):
    decoder = PcmDecoder(channels)
    found, at = [], 0
    for size in [*sizes, len(data)]:
        found.append(decoder.decode(data[at : at + size]))
        at += size
    found.append(decoder.flush())
    if not decoder.container:
        whole = len(data) - len(data) % (2 * channels)
        expected = np.frombuffer(data[:whole], "<i2").reshape(-1, channels)
        np.testing.assert_array_equal(np.concatenate(found) * 32_768, expected)
