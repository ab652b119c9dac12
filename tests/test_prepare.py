"""From pictures to a stored avatar with the real networks, and on to frames."""

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from musetalk_cli.avatar.store import load_avatar, verify
from musetalk_cli.config import DataFolder, JobConfig, RunConfig
from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import read_landmarks
from musetalk_cli.preparation.inputs import PictureSource
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.run.generate import generate
from musetalk_cli.run.prepare import prepare

EXACT = PrepareOptions(smooth=False, max_gap=0, batch_size=2)
"""Every frame has its own box, and a frame without a face has none."""


@pytest.fixture(scope="module")
def source(golden, tmp_path_factory):
    """The forward frames of the golden avatar as a folder of pictures."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(4):
        name = f"{number:08d}.png"
        shutil.copy(golden / "avatar" / "full_imgs" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def landmarks(tmp_path_factory):
    """Landmarks around the drawn face; nothing in frame 2."""
    angle = np.linspace(0, np.pi, 17)
    jaw = np.stack([160 - 45 * np.cos(angle), 140 + 60 * np.sin(angle)], 1)
    brows = np.stack([np.linspace(125, 195, 10), np.full(10, 100.0)], 1)
    inner = np.full((41, 2), [160.0, 140.0])
    points = np.concatenate([jaw, brows, inner])
    face = {"points": points.tolist(), "box": [110, 80, 210, 205]}
    path = tmp_path_factory.mktemp("landmarks") / "landmarks.json"
    path.write_text(json.dumps([face, face, None, face]))
    return path


@pytest.fixture(scope="module")
def run(golden, tmp_path_factory):
    return RunConfig(
        DataFolder(golden, "flag"),
        DataFolder(tmp_path_factory.mktemp("avatars"), "flag"),
        str(golden / "models"),
        "cpu",
        "fp32",
    )


@pytest.fixture(scope="module")
def meta(run, source, landmarks):
    return prepare(run, PictureSource(source, landmarks=read_landmarks(landmarks)), "drawn", EXACT).meta


def test_boxes_follow_the_rule_and_frames_stay_in_step(meta, run, source):
    box = (115, 80, 205, 210)
    assert meta.boxes == (box, box, None, box), "nose bridge at 140, chin at 200, margin 10"
    assert verify(run.avatars.path, "drawn") == []
    avatar = load_avatar(run.avatars.path, "drawn")
    for number, frame in enumerate(avatar.frames):
        assert np.array_equal(frame, cv2.imread(str(source / f"{number:08d}.png")))
    assert all(avatar.patches[number].mask.max() == 255 for number in (0, 1, 3))


def test_stored_latents_are_those_of_the_vae(meta, run, golden_bundle):
    avatar = load_avatar(run.avatars.path, "drawn")
    for frame, box, stored in zip(avatar.frames, meta.boxes, avatar.latents, strict=True):
        if box is None:
            assert not stored.any()
            continue
        crop = frame[box.y1 : box.y2, box.x1 : box.x2, ::-1]
        face = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_LANCZOS4)
        masked = face.copy()
        masked[128:] = 0
        both = torch.from_numpy(np.stack([masked, face])).permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1
        with torch.inference_mode():
            latents = golden_bundle.vae.encode(both).latent_dist.mode() * 0.18215
        assert torch.allclose(stored, latents.flatten(0, 1), atol=1e-4)


@pytest.mark.slow
def test_a_prepared_avatar_speaks(meta, run, golden, tmp_path):
    job = JobConfig(fps=Fraction(8))
    report = generate(run, job, "drawn", golden / "audio.wav", frames_dir=tmp_path / "out")
    assert report.frames == len(list((tmp_path / "out").iterdir())) == 8
    avatar = load_avatar(run.avatars.path, "drawn")
    frame = cv2.imread(str(tmp_path / "out" / "00000000.png"))
    changed = (frame != avatar.frames[0]).any(axis=2)
    box = avatar.patches[0].box
    assert changed[box.slices()].mean() > 0.5
    changed[box.slices()] = False
    assert not changed.any()


@pytest.mark.slow
def test_latents_in_fp16_are_the_rounded_ones_and_speak(meta, run, source, landmarks, golden, tmp_path):
    options = replace(EXACT, latents="fp16")
    prepare(run, PictureSource(source, landmarks=read_landmarks(landmarks)), "half", options)
    whole, half = (load_avatar(run.avatars.path, name).latents for name in ("drawn", "half"))
    assert torch.equal(half, whole.half().float())
    assert verify(run.avatars.path, "half") == []
    report = generate(
        run, JobConfig(fps=Fraction(2)), "half", golden / "audio.wav", frames_dir=tmp_path / "out"
    )
    assert report.frames == 2


@pytest.mark.slow
def test_the_demo_networks_prepare_demo_avatars(run, source, landmarks, embedded):
    by_path = str(embedded / "models" / "demo")
    for model, recorded in (("demo", "demo"), (by_path, "demo"), (run.model, "models"), (None, "v15")):
        models = DataFolder(embedded.parent if model == "demo" else Path(run.model), "flag")
        chosen = replace(run, model=model, models=models)
        given = PictureSource(source, landmarks=read_landmarks(landmarks))
        made = prepare(chosen, given, "x", overwrite=True).meta
        assert made.model == {"version": "v15", "name": recorded}


def test_landmarks_of_another_clip_are_refused(run, source, landmarks):
    with pytest.raises(InputError, match=r"3.*4|4.*3"):
        prepare(run, PictureSource(source, landmarks=read_landmarks(landmarks)[:3]), "other")
    assert not (run.avatars.path / "other").exists()
