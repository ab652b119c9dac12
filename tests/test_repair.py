"""Faces that are not numbers, on small real networks broken in the ways weights and latents can be."""

import copy
import json
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from clocks import FakeClock
from lives import speech, take_all, write_sound

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.errors import ModelError
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Fate

JOB = JobConfig(batch_sizes=(4,), image_ops="cpu", sharpen=None)
HUGE = 3e38


@pytest.fixture(scope="module")
def avatar():
    return synthetic_avatar(96, 64, 32, 4)


def broken_at(avatar, *numbers, value=HUGE):
    latents = avatar.latents.clone()
    latents[list(numbers)] = value
    return replace(avatar, latents=latents)


def with_weight(bundle):
    unet = copy.deepcopy(bundle.unet)
    with torch.no_grad():
        unet.conv_in.weight[:] = 1e38
    return replace(bundle, unet=unet)


def with_scale(bundle):
    vae = copy.deepcopy(bundle.vae)
    vae.register_to_config(scaling_factor=1e-300)
    return replace(bundle, vae=vae)


def in_half(bundle):
    parts = {name: copy.deepcopy(getattr(bundle, name)).half() for name in ("unet", "vae", "audio_encoder")}
    return replace(bundle, dtype=torch.float16, **parts)


def speak(bundle, avatar, job=JOB, seconds=0.4):
    engine = Engine(bundle, job, StageStats(FakeClock()))
    session = engine.open(avatar, Fraction(25), Fraction(1, 2), None, 16_000, 1)
    session.hear(speech(seconds)[:, None], 0.0)
    session.end_sound(0.0)
    frames = []
    while engine.step():
        frames += take_all(session)
    return engine, frames


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("kind", ["latents", "weight", "scale"])
def test_networks_that_make_no_face_are_refused_by_name(tiny_bundle, avatar, kind, warm):
    """In the warm-up of a stream, and with the first batch where there is none."""
    if kind == "latents":
        avatar = broken_at(avatar, 0, 1, 2, 3)
    bundle = {"weight": with_weight, "scale": with_scale}.get(kind, lambda same: same)(tiny_bundle)
    with pytest.raises(
        ModelError, match=r"Model tiny makes no face of avatar .*: what comes out is not a numb"
    ):
        if warm:
            Engine(bundle, JOB, StageStats(FakeClock())).warm_up(avatar)
        else:
            speak(bundle, avatar)


@pytest.mark.parametrize(
    ("size", "number", "image_ops"),
    [
        *((1, 0, "cpu"), (3, 2, "gpu")),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in product((1, 3), (0, 2), ("cpu", "gpu"))
            if case not in {(1, 0, "cpu"), (3, 2, "gpu")}
        ),
    ],
)
def test_one_broken_frame_is_shown_as_it_is_and_the_others_are_made(
    tiny_bundle, avatar, caplog, image_ops, number, size
):
    job = replace(JOB, image_ops=image_ops, batch_sizes=(size,))
    _, plain = speak(tiny_bundle, avatar, job)
    broken = broken_at(avatar, number)
    Engine(tiny_bundle, job, StageStats(FakeClock())).warm_up(broken)
    engine, frames = speak(tiny_bundle, broken, job)
    assert len(frames) == len(plain) == 10
    lost = 0
    for frame, other in zip(frames, plain, strict=True):
        if frame.request.source == number:
            lost += 1
            assert frame.fate is Fate.BROKEN
            np.testing.assert_array_equal(frame.image, avatar.frames[number])
        else:
            assert frame.fate is Fate.SPEAKING
            np.testing.assert_array_equal(frame.image, other.image)
    assert lost > 1
    assert (engine.repair.lost, engine.repair.remade) == (lost, 0)
    said = [record.getMessage() for record in caplog.records if "not a number" in record.getMessage()]
    assert len(said) == 1
    assert f"frame {number}" in said[0]


def test_a_half_format_that_runs_over_is_made_again_in_fp32(tiny_bundle, avatar, caplog):
    """1e5 is infinite in fp16."""
    large = broken_at(avatar, 1, value=1e5)
    _, expected = speak(tiny_bundle, large)
    engine, frames = speak(in_half(tiny_bundle), large)
    remade = [frame for frame in frames if frame.request.source == 1]
    assert engine.repair.remade == len(remade) > 1
    assert engine.repair.lost == 0
    assert all(frame.fate is Fate.SPEAKING for frame in frames)
    for frame in remade:
        exact = expected[frame.request.index].image.astype(int)
        assert np.abs(frame.image - exact).mean() < 2
        assert np.abs(exact - avatar.frames[1]).mean() > 2, "the face is not the source frame"
    said = [record.getMessage() for record in caplog.records if "fp32" in record.getMessage()]
    assert len(said) == 1
    assert "float16" in said[0]


@pytest.fixture
def broken_models(models, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(models, folder)
    path = folder / "sd-vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scaling_factor": 1e-300}))
    return folder


@pytest.mark.parametrize("command", ["generate", "realtime"])
def test_a_command_with_such_networks_fails_and_leaves_nothing(
    musetalk, broken_models, avatars_dir, tmp_path, command
):
    sound = write_sound(tmp_path / "in.wav", speech(1))
    chosen = ["--avatar", "synthetic", "--avatars-dir", avatars_dir, "--model", broken_models]
    options = ["--device", "cpu", "--fps", "5", "--audio", sound, "--output", tmp_path / "out.mp4"]
    code, out, err = musetalk(command, *chosen, *options)
    assert (code, out) == (1, "")
    assert f"Model {broken_models}" in err or f"Model {broken_models.name}" in err
    assert "not a number" in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "models"]


def test_a_report_counts_them(musetalk, models, avatars_dir, golden_avatar, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "avatars" / "synthetic"
    shutil.copytree(avatars_dir / "synthetic", folder)
    tensors = load_file(folder / "latents.safetensors")
    for values in tensors.values():
        values[1] = HUGE
    save_file(tensors, folder / "latents.safetensors")
    description = json.loads((folder / "avatar.json").read_text())
    (folder / "avatar.json").write_text(json.dumps(description | {"latents_sha256": None}))
    sound = write_sound(tmp_path / "in.wav", speech(1))
    chosen = ["--avatar", "synthetic", "--avatars-dir", tmp_path / "avatars", "--model", models]
    options = ["--device", "cpu", "--fps", "8", "--audio", sound, "--frames-dir", tmp_path / "out", "--json"]
    code, out, err = musetalk("generate", *chosen, *options)
    assert code == 0, err
    report = json.loads(out)
    assert (report["frames"], report["broken_frames"], report["remade_frames"]) == (8, 2, 0)
    assert report["idle_frames"] == 0
