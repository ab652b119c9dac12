"""The benchmark runs without files or ffmpeg, and its figures are what they say."""

import json
import time

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from musetalk_cli.bench.measure import Reached, Roofline, count_flops, measure_roofline, median_s
from musetalk_cli.bench.synthetic import synthetic_avatar, synthetic_sound
from musetalk_cli.errors import InputError

CPU = torch.device("cpu")


def test_a_slow_call_is_measured_once_and_a_fast_one_often():
    calls = []

    def work():
        calls.append(time.perf_counter())

    assert 0 < median_s(work, CPU, 0.05) < 0.05
    assert len(calls) == 203
    calls.clear()
    median_s(lambda: calls.append(1), CPU, 0.0)
    assert len(calls) == 1


def test_flops_of_a_matrix_product():
    one = torch.ones(8, 16)
    assert count_flops(lambda: one @ one.T) == 2 * 8 * 16 * 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flops_of_attention_are_counted_on_a_cpu(dtype):
    query, key = torch.ones(2, 8, 64, 40, dtype=dtype), torch.ones(2, 8, 50, 40, dtype=dtype)
    with torch.inference_mode():
        counted = count_flops(lambda: scaled_dot_product_attention(query, key, key))
    assert counted == 2 * (2 * 8) * 64 * 50 * (40 + 40)


def test_the_roofline_is_of_this_machine():
    roofline = measure_roofline(CPU, torch.float32, 0.0)
    assert 0 < roofline.tflops < 1e3
    assert 0 < roofline.gbytes_per_s < 1e5
    assert roofline.link_gbytes_per_s is None


def test_the_roofline_is_the_slower_of_computing_and_reading():
    roofline = Roofline(tflops=2.0, gbytes_per_s=4.0)
    assert roofline.seconds(6e12, 4e9) == pytest.approx(3.0)
    assert roofline.seconds(6e12, 40e9) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("flops", "moved", "linked", "reached"),
    [
        (6e12, 4e9, 0, Reached("matrix", 1.0, 0.5)),
        (6e12, 40e9, 0, Reached("memory", 40 / 6, 10 / 6)),
        (0, 4e9, 0, Reached("memory", 4 / 6, 1 / 6)),
        (0, 4e9, 1.5e9, Reached("link", 0.25, 0.5)),
        (0, 0, 0, None),
    ],
)
def test_what_is_reached_is_that_of_the_longest_limit(flops, moved, linked, reached):
    roofline = Roofline(tflops=2.0, gbytes_per_s=4.0, link_gbytes_per_s=0.5)
    found = roofline.reached(6.0, flops, moved, linked)
    if reached is None:
        assert found is None
    else:
        assert (found.bound, found.rate, found.share) == pytest.approx(
            (reached.bound, reached.rate, reached.share)
        )


def test_without_a_way_to_the_host_nothing_is_limited_by_it():
    reached = Roofline(tflops=2.0, gbytes_per_s=4.0).reached(1.0, 0, 2e9, 100e9)
    assert (reached.bound, reached.share) == ("memory", 0.5)


def test_the_synthetic_avatar_is_one():
    avatar = synthetic_avatar(320, 240, 96, 6)
    assert len(avatar.frames) == len(avatar.patches) == len(avatar.latents) == 6
    sizes = {(patch.face.width, patch.face.height) for patch in avatar.patches}
    assert len(sizes) > 1, "faces change their size"
    for patch in avatar.patches:
        assert patch.face.clamp(320, 240) == patch.face
        assert patch.box.intersect(patch.face) == patch.box
        assert patch.mask.max() == 255
    with pytest.raises(InputError, match="does not fit"):
        synthetic_avatar(320, 240, 230, 6)


def test_the_synthetic_sound_is_audible():
    sound = synthetic_sound(0.5)
    assert sound.shape == (8000, 1)
    assert sound.dtype == np.float32
    assert 0.02 < sound.std() < 0.2


@pytest.mark.slow
def test_without_a_model_the_published_weights_are_measured_else_the_demo(
    tiny_installation, models, tmp_path, musetalk, monkeypatch
):
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (tiny_installation,))
    small = ["--device", "cpu", "--batch-size", "1", "--seconds", "0.1", "--chunk", "0.1", "--budget", "0"]
    small += ["--no-baseline"]
    small += ["--frame-size", "128x128", "--face-size", "64", "--avatar-frames", "1", "--fps", "10"]
    for folder, model, said in (
        (
            tmp_path,
            "demo",
            f"no model chosen, and no published weights in {tmp_path}: measuring the embedded demo",
        ),
        (models, "v15", f"no model chosen, and v15 is in {models}: measuring v15"),
    ):
        code, out, err = musetalk("bench", *small, "--models-dir", folder, "--json", "-", "-v")
        assert code == 0, err
        assert json.loads(out)["settings"]["model"] == model
        assert said in err.splitlines()
        assert f"model: {model} (" in err
