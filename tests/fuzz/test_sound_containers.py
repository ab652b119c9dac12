"""Sound in containers whose sizes, parts and time stamps are anything is as long as it should be."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.errors import InputError
from musetalk_cli.media import ffmpeg
from musetalk_cli.media.audio import SoundReader
from musetalk_cli.media.segments import find_segments

SIZES = st.sampled_from([0, 1 << 31, 2_000_000_000, 0x7FFF_FFFF, 0xFFFF_FFFF]) | st.integers(0, 0xFFFF_FFFF)
RATE = 8000


def wav(samples, size, riff):
    """A WAV of 16-bit mono whose header states any sizes."""
    head = (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 16_000, 2, 16)
    )
    return head + b"data" + struct.pack("<I", size) + samples.astype("<i2").tobytes()


def aiff(samples):
    """An AIFF of 16-bit mono."""
    rate = struct.pack(">HQ", 16_383 + 12, RATE << 51)  # an 80-bit float: 2 ** 12 < 8000 < 2 ** 13
    form = b"COMM" + struct.pack(">IhIh", 18, 1, len(samples), 16) + rate
    data = samples.astype(">i2").tobytes()
    form += b"SSND" + struct.pack(">III", len(data) + 8, 0, 0) + data
    return b"FORM" + struct.pack(">I", len(form) + 4) + b"AIFF" + form


def au(samples, *, told=True):
    """An AU of 16-bit mono, whose header may leave its length open."""
    data = samples.astype(">i2").tobytes()
    return b".snd" + struct.pack(">5I", 28, len(data) if told else 0xFFFF_FFFF, 3, RATE, 1) + bytes(4) + data


def caf(samples):
    """A CAF of 16-bit mono."""
    data = bytes(4) + samples.astype(">i2").tobytes()
    form = struct.pack(">d4sIIIII", RATE, b"lpcm", 0, 2, 1, 1, 16)
    return (
        b"caff\0\1\0\0desc" + struct.pack(">q", len(form)) + form
        + b"data" + struct.pack(">q", len(data)) + data
    )  # fmt: skip


def number(value, width):
    """A length as Matroska writes it."""
    return (value | 1 << 7 * width).to_bytes(width, "big")


def element(name, body):
    return bytes.fromhex(name) + number(len(body), 4) + body


def matroska(blocks):
    """Raw PCM in blocks, each at its own millisecond."""
    head = element("1a45dfa3", element("4282", b"matroska"))
    audio = element(
        "e1", element("b5", struct.pack(">d", RATE)) + element("9f", b"\1") + element("6264", b"\x10")
    )
    track = element("d7", b"\1") + element("73c5", b"\1") + element("83", b"\2")
    track += element("86", b"A_PCM/INT/LIT") + audio
    info = element("1549a966", element("2ad7b1", (1_000_000).to_bytes(3, "big")))
    clusters = b""
    for at, samples in blocks:
        block = b"\x81\0\0\x80" + samples.astype("<i2").tobytes()
        clusters += element("1f43b675", element("e7", at.to_bytes(4, "big")) + element("a3", block))
    return head + element("18538067", info + element("1654ae6b", element("ae", track)) + clusters)


def read(data, suffix):
    """All samples of a file that holds these bytes, as 16-bit numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"sound.{suffix}")
        path.write_bytes(data)
        with SoundReader(path) as reader:
            return np.round(np.concatenate(list(reader.blocks(4096)))[:, 0] * 32_768)


@given(size=SIZES, riff=SIZES, count=st.integers(1, 4000))
def test_a_wav_with_any_sizes_gives_what_is_there(size, riff, count):
    samples = np.arange(1, count + 1)
    size -= size % 2 if size <= 2 * count else 0
    stated = size // 2 if 0 < size <= 2 * count else count
    if not stated:
        return
    np.testing.assert_array_equal(read(wav(samples, size, riff), "wav"), samples[:stated])


@pytest.mark.slow
@given(
    counts=st.lists(st.integers(1, 2000), min_size=1, max_size=4),
    size=st.sampled_from([None, 0, 0xFFFF_FFFF]),
)
def test_joined_wavs_give_all_their_parts(counts, size):
    parts = [np.arange(1, count + 1) for count in counts]
    stated = [2 * count if size is None else size for count in counts]
    data = b"".join(wav(part, one, one) for part, one in zip(parts, stated, strict=True))
    np.testing.assert_array_equal(read(data, "wav"), np.concatenate(parts))


MAKERS = {
    "wav": lambda samples: wav(samples, 2 * len(samples), 36 + 2 * len(samples)),
    "aiff": aiff,
    "au": au,
    "open.au": lambda samples: au(samples, told=False),
    "caf": caf,
}


@pytest.mark.slow
@given(kind=st.sampled_from(sorted(MAKERS)), counts=st.lists(st.integers(1, 2000), min_size=1, max_size=4))
def test_joined_recordings_give_all_their_parts_in_every_container(kind, counts):
    parts = [np.arange(1, count + 1) * (-1) ** place for place, count in enumerate(counts)]
    found = read(b"".join(map(MAKERS[kind], parts)), kind.split(".")[-1])
    np.testing.assert_array_equal(found, np.concatenate(parts))


@given(steps=st.lists(st.sampled_from([-60, 0, 0, 50, 300, 1500]), min_size=1, max_size=6))
def test_gaps_are_silence_and_overlaps_are_trimmed_wherever_they_are(steps):
    """Every block is 200 ms; a step is what the next one comes too late, or too early."""
    blocks, at, expected = [], 0, np.zeros(0)
    for place, step in enumerate([0, *steps]):
        at += step if place else 0
        samples = np.full(RATE // 5, 1000 * (place + 1))
        blocks.append((at, samples))
        begin = at * RATE // 1000
        missing = max(0, begin - len(expected))
        expected = np.concatenate([expected, np.zeros(missing), samples[max(0, len(expected) - begin) :]])
        at += 200
    found = read(matroska(blocks), "mkv")
    assert abs(len(found) - len(expected)) <= RATE // 50
    assert np.mean(found[: len(expected)] != expected[: len(found)]) < 0.02


@pytest.fixture(scope="module")
def mp3(tmp_path_factory):
    """Half a second of MP3, with and without the frame that states its length."""
    folder = tmp_path_factory.mktemp("mp3")
    made = []
    for name, options in (("with", []), ("without", ["-write_xing", "0", "-id3v2_version", "0"])):
        path = folder / f"{name}.mp3"
        tone = ["-f", "lavfi", "-i", "sine=duration=0.5:sample_rate=16000"]
        subprocess.run([ffmpeg.executable(), "-v", "error", *tone, *options, path], check=True)
        made.append(path.read_bytes())
    return made


@given(kinds=st.lists(st.booleans(), min_size=1, max_size=4), lost=st.integers(0, 60))
def test_joined_mp3s_are_whole_unless_their_last_bytes_are_lost(mp3, kinds, lost):
    data = b"".join(mp3[kind] for kind in kinds)
    if not lost:
        assert len(read(data, "mp3")) >= 0.5 * 16_000 * len(kinds)
        return
    with pytest.raises(InputError, match="cut off"):
        read(data[:-lost], "mp3")


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"RIFF", b"ID3\3", b"OggS\0", b"\x1a\x45\xdf\xa3", b"\xff\xfb\x90\x64"]),
)
def test_any_bytes_have_segments_that_lie_in_the_file(data, head):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sound.bin")
        path.write_bytes(head + data)
        for segment in find_segments(path):
            assert 0 <= segment.begin <= segment.end <= len(head + data)
