"""Recordings that were joined by joining their files: all of them, at the rate of the first, or none."""

import subprocess

import numpy as np
import pytest
import soundfile

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.audio import SoundReader, probe_sound
from musetalk_cli.media.signatures import next_signature, signature_of

SPLIT = {
    "wav": [], "aiff": [], "aifc": ["-f", "aiff", "-c:a", "pcm_s16le"], "au": [], "caf": [], "w64": [],
    "rf64": ["-f", "wav", "-rf64", "always"], "flac": [], "oga": [], "ogg": [], "opus": ["-ar", 48_000],
    "tta": [], "voc": ["-c:a", "pcm_s16le"], "sox": [], "nut": ["-c:a", "pcm_s16le"],
    "mka": ["-c:a", "pcm_s16le"], "avi": ["-c:a", "pcm_s16le"], "wma": [], "flv": [],
    "amr": ["-ar", 8000, "-ac", 1],
}  # fmt: skip
"""Each recording in such a file is decoded by itself; and how ffmpeg is told to write one."""
FRAMES = {"aac": [], "ac3": ["-ar", 48_000], "mp3": [], "mp2": ["-ar", 48_000]}
"""One decoder reads through these."""


def write(folder, name, options, rate=44_100, channels=1, seed=0):
    """Half a second of noise."""
    source = folder / "noise.wav"
    noise = np.random.default_rng(seed).uniform(-0.4, 0.4, (rate // 2, channels))
    soundfile.write(source, noise, rate, subtype="PCM_16")
    path = folder / f"{seed}-{rate}-{channels}.{name}"
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", source, *options, path]
    subprocess.run(list(map(str, command)), check=True)
    return path


def join(*paths):
    path = paths[0].with_stem("joined")
    path.write_bytes(b"".join(path.read_bytes() for path in paths))
    return path


def read(path):
    with SoundReader(path) as reader:
        return np.concatenate(list(reader.blocks(4096)))


@pytest.mark.parametrize("name", SPLIT)
def test_joined_recordings_are_heard_one_after_the_other(tmp_path, name):
    parts = [write(tmp_path, name, SPLIT[name], seed=number) for number in range(2)]
    np.testing.assert_array_equal(read(join(*parts)), np.concatenate([read(part) for part in parts]))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        pytest.param(name, other, marks=[pytest.mark.slow] if (place + turn) % 4 else [])
        for place, name in enumerate((*SPLIT, *FRAMES))
        for turn, other in enumerate([(22_050, 1), (44_100, 2)])
    ],
)
def test_what_follows_at_another_rate_or_with_more_channels_keeps_its_length(tmp_path, name, other):
    options = (SPLIT | FRAMES)[name]
    parts = [write(tmp_path, name, options), write(tmp_path, name, options, *other, seed=1)]
    first, second, both = (probe_sound(path) for path in (*parts, join(*parts)))
    assert both.duration == pytest.approx(first.duration + second.duration, abs=0.11)
    if name in SPLIT:
        assert (both.sample_rate, both.channels) == (first.sample_rate, first.channels)


@pytest.mark.parametrize("names", [("ogg", "opus"), ("opus", "oga"), ("oga", "ogg")])
def test_an_ogg_chain_of_several_codecs_is_read_to_its_end(tmp_path, names):
    parts = [write(tmp_path, name, [], 48_000) for name in names]
    assert probe_sound(join(*parts)).samples == sum(probe_sound(part).samples for part in parts)


@pytest.mark.parametrize("other", [(32_000, 1), (48_000, 2)])
def test_a_stream_that_changes_on_its_way_is_refused_by_name(tmp_path, other):
    parts = [
        write(tmp_path, "ts", ["-c:a", "aac"], *form, seed=number)
        for number, form in enumerate([(48_000, 1), other])
    ]
    with pytest.raises(InputError, match=f"changes to {other[0]} Hz"):
        probe_sound(join(*parts))


@pytest.mark.parametrize("name", ["aiff", "au", "w64", "flac", "ogg"])
def test_the_last_of_joined_recordings_may_not_be_cut_off(tmp_path, name):
    path = join(*(write(tmp_path, name, [], seed=number) for number in range(2)))
    path.write_bytes(path.read_bytes()[:-9_000])
    with pytest.raises(InputError, match=r"cut off|can be read: End of file"):
        probe_sound(path)


def test_sound_has_no_signature(tmp_path):
    path = tmp_path / "noise"
    path.write_bytes(np.random.default_rng(0).bytes(8 << 20))
    wanted = [signature_of(write(tmp_path, name, SPLIT[name]).read_bytes()[:64]) for name in ("aiff", "au")]
    with path.open("rb") as file:
        for signature in wanted:
            assert next_signature(file, 0, 8 << 20, signature) == 8 << 20
