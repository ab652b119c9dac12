"""The benchmark runs without files or ffmpeg, and its figures are what they say."""

import json
import time

import numpy as np
import pytest
import torch

from musetalk_cli.bench.measure import Roofline, count_flops, measure_roofline, median_s
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


def test_the_roofline_is_of_this_machine():
    roofline = measure_roofline(CPU, torch.float32, 0.0)
    assert 1e-3 < roofline.tflops < 1e3
    assert 0.1 < roofline.gbytes_per_s < 1e5


def test_the_roofline_is_the_slower_of_computing_and_reading():
    roofline = Roofline(tflops=2.0, gbytes_per_s=4.0)
    assert roofline.seconds(6e12, 4e9) == pytest.approx(3.0)
    assert roofline.seconds(6e12, 40e9) == pytest.approx(10.0)


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


def test_without_a_model_the_published_weights_are_measured_else_the_demo(
    tiny_installation, models, tmp_path, musetalk, monkeypatch
):
    monkeypatch.setattr("musetalk_cli.nets.embedded.places", lambda: (tiny_installation,))
    small = ["--device", "cpu", "--batch-size", "1", "--seconds", "0.1", "--chunk", "0.1", "--budget", "0"]
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
        assert json.loads(out)["stream"]["settings"]["model"] == model
        assert said in err.splitlines()
        assert f"model: {model} (" in err


def test_bench_measures_every_stage_and_the_whole(musetalk, models, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere")
    command = f"bench --device cpu --model {models} --batch-size 1,2 --seconds 0.4 --chunk 0.2"
    command += (
        f" --budget 0 --frame-size 320x240 --face-size 96 --avatar-frames 4 --json {tmp_path / 'bench.json'}"
    )
    code, out, err = musetalk(*command.split())
    assert code == 0, err
    assert "frames/s" in out
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert figures["command"].startswith("musetalk bench --device cpu")
    assert [batch["size"] for batch in figures["batches"]] == [1, 2]
    for batch in figures["batches"]:
        assert set(batch["gpu_ms"]) == set(batch["cpu_ms"]) == {"resize", "sharpen", "blend", "download"}
        assert batch["speed_up"] == pytest.approx(
            sum(batch["cpu_ms"].values()) / sum(batch["gpu_ms"].values())
        )
        seconds = (batch["unet_ms"] + batch["vae_ms"]) / 1e3
        assert batch["roofline_share"] == pytest.approx(batch["size"] / seconds / batch["roofline_fps"])
    assert figures["stream"]["frames"] == 10
    assert figures["stream"]["settings"]["random_weights"] is False
