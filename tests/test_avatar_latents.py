"""Latents are stored in fp32 or fp16 and are float32 in memory."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from musetalk_cli.avatar.latents import LatentsFile, read_format, read_latents, to_stored
from musetalk_cli.avatar.store import latents_format, load_avatar, verify
from musetalk_cli.avatar.writer import AvatarWriter
from musetalk_cli.errors import AvatarError
from musetalk_cli.types import Box

BOX = Box(2, 2, 14, 14)
LARGEST = 65504.0


def write(folder, values, **options):
    with AvatarWriter(folder, "anna", **options) as writer:
        for _ in values:
            writer.add(np.zeros((16, 16, 3), np.uint8), np.full((12, 12), 255, np.uint8), BOX, BOX)
        for row in values:
            writer.add_latents(row[None])
        return writer.finish(fps=Fraction(25), parameters={}, model={"version": "v15"}, source={})


def normal(count):
    return np.random.default_rng(0).normal(size=(count, 8, 32, 32)).astype(np.float32)


@pytest.mark.parametrize(("kind", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
def test_what_is_written_is_read_back_in_float32(tmp_path, kind, dtype):
    latents = normal(3)
    write(tmp_path, latents, latents=kind)
    stored = load_file(tmp_path / "anna" / "latents.safetensors")["latents"]
    assert stored.dtype == dtype
    loaded = load_avatar(tmp_path, "anna").latents
    assert loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), latents.astype(dtype).astype(np.float32))
    assert latents_format(tmp_path, "anna") == kind
    assert verify(tmp_path, "anna") == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 3 * 8 * 32 * 32 * 2 - 1), bit=st.integers(0, 7))
def test_a_single_bit_that_changed_is_noticed(tmp_path, place, bit):
    if not (tmp_path / "anna").exists():
        write(tmp_path, normal(3), latents="fp16")
    path = tmp_path / "anna" / "latents.safetensors"
    written = path.read_bytes()
    data = bytearray(written)
    data[len(data) - 1 - place] ^= 1 << bit
    path.write_bytes(data)
    problems = verify(tmp_path, "anna")
    with pytest.raises(AvatarError, match=r"as it was written|are not finite"):
        load_avatar(tmp_path, "anna")
    path.write_bytes(written)
    assert len(problems) == 1
    assert verify(tmp_path, "anna") == []


def test_fp32_is_the_default_and_fp16_half_its_size(tmp_path):
    sizes = []
    for folder, options in ((tmp_path / "a", {}), (tmp_path / "b", {"latents": "fp16"})):
        write(folder, normal(2), **options)
        sizes.append((folder / "anna" / "latents.safetensors").stat().st_size)
    assert latents_format(tmp_path / "a", "anna") == "fp32"
    assert sizes[0] - sizes[1] == 2 * 8 * 32 * 32 * 2


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_value_is_rounded_or_refused(value):
    latents = np.zeros((2, 8, 32, 32), np.float32)
    latents[1, 3, 4, 5] = value
    if abs(value) < LARGEST + 16:
        stored = to_stored(latents, "fp16", 0)
        assert abs(float(stored[1, 3, 4, 5]) - value) <= max(abs(value) * 2**-11, 2**-25)
    else:
        with pytest.raises(AvatarError, match="frame 8 are too large for fp16") as caught:
            to_stored(latents, "fp16", 7)
        assert "--latents fp32" in caught.value.hint
    np.testing.assert_array_equal(to_stored(latents, "fp32", 0), latents)


def test_what_overflows_leaves_nothing(tmp_path):
    with pytest.raises(AvatarError, match="frame 1 are too large"):
        write(tmp_path, normal(2) * np.array([1, 1e6], np.float32)[:, None, None, None], latents="fp16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [np.float64, np.int16])
def test_other_formats_are_refused(tmp_path, dtype):
    save_file({"latents": normal(2).astype(dtype)}, tmp_path / "latents.safetensors")
    for read in (read_latents, read_format):
        with pytest.raises(AvatarError, match=r"not F32 or F16 \[2, 8, 32, 32\]") as caught:
            read(tmp_path, 2, "what to do")
        assert caught.value.hint == "what to do"


def test_an_infinite_half_is_refused(tmp_path):
    latents = normal(2).astype(np.float16)
    latents[1, 0, 0, 0] = np.inf
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    assert read_format(tmp_path, 2, "") == "fp16"
    with pytest.raises(AvatarError, match="frame 1 are not finite"):
        read_latents(tmp_path, 2, "")


FORMATS = [("fp32", np.float32), ("fp16", np.float16)]
ROW = 8 * 32 * 32


def contents(folder):
    return (folder / "latents.safetensors").read_bytes()


@pytest.mark.parametrize(("kind", "dtype"), FORMATS)
@pytest.mark.parametrize("frames", [1, 7, 10, 123])
def test_the_file_is_what_safetensors_itself_writes(tmp_path, kind, dtype, frames):
    latents = normal(frames)
    with LatentsFile(tmp_path, frames, kind) as file:
        for first in (*range(3, frames, 3), 0):
            file.write(first, latents[first : first + 3])
    assert contents(tmp_path) == save({"latents": latents.astype(dtype)})


@settings(max_examples=15, deadline=None)
@given(
    frames=st.integers(1, 6),
    kind=st.sampled_from(FORMATS),
    written=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(0, 99)), max_size=5),
)
def test_rows_come_in_any_order_and_those_never_written_are_zeros(tmp_path_factory, frames, kind, written):
    folder = tmp_path_factory.mktemp("latents")
    expected = np.zeros((frames, 8, 32, 32), np.float32)
    with LatentsFile(folder, frames, kind[0]) as file:
        for first, count, seed in written:
            if first + count <= frames:
                rows = np.random.default_rng(seed).normal(size=(count, 8, 32, 32)).astype(np.float32)
                expected[first : first + count] = rows
                file.write(first, rows)
    np.testing.assert_array_equal(
        read_latents(folder, frames, ""), expected.astype(kind[1]).astype(np.float32)
    )
    assert read_format(folder, frames, "") == kind[0]


def test_rows_in_another_order_of_memory_are_stored_in_c_order(tmp_path):
    latents = normal(2)
    with LatentsFile(tmp_path, 2, "fp32") as file:
        file.write(0, np.asfortranarray(latents))
    assert contents(tmp_path) == save({"latents": latents})


def test_what_was_written_is_on_disk_and_gone_on_with(tmp_path):
    latents = normal(4)
    first = LatentsFile(tmp_path, 4, "fp32")
    first.write(0, latents[:2])
    assert contents(tmp_path) == save({"latents": np.concatenate([latents[:2], np.zeros_like(latents[2:])])})
    # As after a kill: the first one is never closed.
    with LatentsFile(tmp_path, 4, "fp32") as file:
        file.write(2, latents[2:])
    assert contents(tmp_path) == save({"latents": latents})
    first.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("frames", "kind"),
    [(3, "fp32"), (5, "fp32"), (4, "fp16"), (8, "fp16")],
    ids=["fewer", "more", "half", "as large in another format"],
)
def test_a_file_of_another_size_or_format_is_started_anew(tmp_path, frames, kind):
    with LatentsFile(tmp_path, 4, "fp32") as file:
        file.write(0, normal(4))
    before = len(contents(tmp_path))
    with LatentsFile(tmp_path, frames, kind):
        pass
    dtype = dict(FORMATS)[kind]
    assert contents(tmp_path) == save({"latents": np.zeros((frames, 8, 32, 32), dtype)})
    assert (len(contents(tmp_path)) == before) == ((frames, kind) == (8, "fp16"))


def test_a_torn_file_is_started_anew(tmp_path):
    for rest in (b"", b"\x00" * 50, save({"latents": normal(2)})[:-1]):
        (tmp_path / "latents.safetensors").write_bytes(rest)
        with LatentsFile(tmp_path, 2, "fp32"):
            pass
        assert contents(tmp_path) == save({"latents": np.zeros((2, 8, 32, 32), np.float32)})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (np.zeros((1, 4, 32, 32)), "shape"),
        (np.full((2, 8, 32, 32), np.nan), "frame 1 are not finite"),
        (np.full((2, 8, 32, 32), 1e6), "frame 1 are too large for fp16"),
    ],
)
def test_what_is_refused_changes_nothing(tmp_path, rows, said):
    with LatentsFile(tmp_path, 4, "fp16") as file:
        file.write(0, normal(4))
        before = contents(tmp_path)
        with pytest.raises(AvatarError, match=said):
            file.write(1, rows)
        assert contents(tmp_path) == before


def test_a_long_clip_takes_no_memory_and_what_is_not_written_no_time(tmp_path):
    """An hour of frames is made in an instant: nothing is held or filled in."""
    frames = 100_000
    tracemalloc.start()
    with LatentsFile(tmp_path, frames, "fp32") as file:
        file.write(frames - 1, normal(1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    path = tmp_path / "latents.safetensors"
    assert path.stat().st_size > frames * ROW * 4
    with safe_open(path, framework="np") as file:
        view = file.get_slice("latents")
        np.testing.assert_array_equal(view[frames - 1 : frames], normal(1))
        assert not view[0:1].any()
