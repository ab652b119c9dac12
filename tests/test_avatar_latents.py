"""Latents are stored in fp32 or fp16 and are float32 in memory."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from musetalk_cli.avatar.latents import read_format, read_latents, to_stored
from musetalk_cli.avatar.store import AvatarWriter, latents_format, load_avatar, verify
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
