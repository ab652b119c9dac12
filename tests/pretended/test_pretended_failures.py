"""What becomes of a run whose device makes what is no number, or fails for good."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lives import speech, write_sound

from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import DataFolder, RunConfig
from musetalk_cli.engine.repair import KEPT_BATCHES
from musetalk_cli.errors import DeviceError, DeviceLostError
from musetalk_cli.nets.generator import Generator
from musetalk_cli.ops.triton_ops import Compositor
from musetalk_cli.run.job import make_engine as make_job_engine
from musetalk_cli.run.kept import Kept
from pretended.scarce import NO_MEMORY
from pretended.speaking import JOB, make_engine, speak

# -- faces that are no numbers -----------------------------------------------------------------------------


def broken_at(avatar, number, value):
    latents = avatar.latents.clone()
    latents[number] = value
    return replace(avatar, latents=latents)


@pytest.mark.slow
def test_a_face_that_is_no_number_in_fp32_either_is_never_shown(gpu, on_gpu, on_cpu, avatars):
    """In batches that two sessions share, of which one alone is broken."""
    plain = speak(make_engine(on_gpu(torch.float16)), *avatars, seconds=0.3)
    broken = broken_at(avatars[0], 1, 3e38)
    spoken = speak(make_engine(on_gpu(torch.float16)), broken, avatars[1], seconds=0.3)
    repair = spoken.engine.repair
    assert repair.remade == 0
    shown = [np.array_equal(image, broken.frames[1]) for image in spoken.frames[0]]
    assert repair.lost == sum(shown) > 1
    whole = [[image for image, is_source in zip(frames, shown, strict=True) if not is_source]
             for frames in (spoken.frames[0], plain.frames[0])]  # fmt: skip
    for ours, theirs in zip([*whole[0], *spoken.frames[1]], [*whole[1], *plain.frames[1]], strict=True):
        assert np.array_equal(ours, theirs)


def test_every_face_of_a_batch_is_made_again_while_the_next_batch_is_on_its_way(gpu, on_gpu, avatars):
    engine = make_engine(on_gpu(torch.float16))
    broken = broken_at(avatars[0], [0, 1, 2, 3], 1e5)
    spoken = speak(engine, broken, seconds=0.3)
    assert engine.filling.batches > 1
    assert engine.repair.remade == len(spoken.frames[0])
    assert engine.repair.lost == 0


@pytest.mark.parametrize(
    "place",
    ["exact", pytest.param("unet", marks=pytest.mark.slow), pytest.param("draw", marks=pytest.mark.slow)],
)
def test_a_face_for_which_there_is_no_memory_in_fp32_is_lost_and_the_stream_is_not(
    gpu, on_gpu, avatars, monkeypatch, place
):
    generator = Generator(on_gpu(torch.float16))
    engine = make_engine(on_gpu(torch.float16), generator=generator)
    exact = generator.exact

    def without(*_):
        raise torch.OutOfMemoryError(NO_MEMORY)

    def made():
        networks = exact()
        monkeypatch.setattr(networks, place, without)
        return networks

    monkeypatch.setattr(generator, "exact", without if place == "exact" else made)
    spoken = speak(engine, broken_at(avatars[0], 1, 1e5), seconds=0.3)
    assert engine.repair.lost == sum(np.array_equal(one, avatars[0].frames[1]) for one in spoken.frames[0])
    assert engine.repair.lost > 1
    assert (engine.repair.remade, engine.faces.halvings) == (0, 0)


def test_the_networks_in_fp32_are_one_copy_and_go_when_they_are_not_needed(gpu, on_gpu, avatars, monkeypatch):
    generator, made = Generator(on_gpu(torch.float16)), []
    engine, exact = make_engine(on_gpu(torch.float16), generator=generator), generator.exact
    monkeypatch.setattr(generator, "exact", lambda: made.append(exact()) or made[-1])
    speak(engine, broken_at(avatars[0], 1, 1e5), seconds=0.3)
    assert len(made) == 1
    assert engine.repair.holds_copy
    marks = [np.zeros((2, 2, 3), np.uint8), np.ones(1, np.uint8)]
    held = []
    for _ in range(KEPT_BATCHES + 1):
        engine.repair.mend([], marks, engine.images)
        held.append(engine.repair.holds_copy)
    assert held[0]
    assert not held[-1]
    assert held == sorted(held, reverse=True)


# -- a device that fails for good --------------------------------------------------------------------------


def test_a_failure_that_tritons_launcher_meets_first_is_the_devices(triton, on_gpu, avatars, monkeypatch):
    launch = Compositor.__call__

    def fails(compositor, *arguments):
        triton.lives = 0
        launch(compositor, *arguments)

    engine = make_engine(on_gpu())
    monkeypatch.setattr(Compositor, "__call__", fails)
    with pytest.raises(DeviceLostError, match=r"has failed: Triton Error \[CUDA\]: an illegal memory access"):
        speak(engine, avatars[0], seconds=0.2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError(NO_MEMORY), "not enough memory: CUDA out of memory"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "no code for"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "device has failed"),
    ],
)
@pytest.mark.parametrize("place", ["musetalk_cli.run.kept.open_bundle", "musetalk_cli.run.job.Engine"])
def test_a_device_that_fails_before_the_first_frame_is_told_as_later(
    monkeypatch, on_cpu, place, error, message
):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(place, fails)
    with pytest.raises(DeviceError, match=message):
        if place.endswith("Engine"):
            make_job_engine(on_cpu, JOB, MonotonicClock(), live=False)
        else:
            Kept().bundle(RunConfig(DataFolder(Path(), "flag"), DataFolder(Path(), "flag"), device="cpu"))


@pytest.fixture
def speaking(musetalk, models, avatars_dir, tmp_path):
    """Runs a command that speaks on the GPU."""
    sound = write_sound(tmp_path / "in.wav", speech(1.2))
    chosen = ["--avatar", "synthetic", "--avatars-dir", avatars_dir, "--model", models, "--audio", sound]
    return lambda command, *options: musetalk(command, *chosen, "--device", "cuda", *options)


def read_frames(path):
    """Every frame of a video."""
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1])
    return frames


def launches_of(gpu, speaking, *command):
    """How many launches a command takes that nothing fails in."""
    code, _, err = speaking(*command)
    assert code == 0, err
    found = gpu.launches.total()
    gpu.launches.clear()
    return found


@pytest.mark.slow
def test_a_live_stream_completes_its_files_when_the_device_fails_for_good(gpu, speaking, tmp_path):
    command = ["realtime", "--no-pace", "--batch-size", "4", "--json", "--output"]
    whole = launches_of(gpu, speaking, *command, tmp_path / "whole.mp4")
    gpu.lives = int(0.9 * whole)
    code, out, err = speaking(*command, tmp_path / "cut.mp4")
    assert gpu.lives <= 0
    assert code == 1
    assert "Traceback" not in err
    told = " ".join(err.split())
    assert told.count("The device has failed: CUDA error: an illegal memory access was encountered.") == 1
    report = json.loads(out)
    assert 0 < report["frames"] < 30
    assert report["failures"] == [
        "The device has failed: CUDA error: an illegal memory access was encountered."
    ]
    assert len(read_frames(tmp_path / "cut.mp4")) == report["frames"]


@pytest.mark.slow
def test_a_recording_leaves_nothing_when_the_device_fails_for_good(gpu, speaking, tmp_path):
    command = ["generate", "--batch-size", "4", "--output"]
    gpu.lives = int(0.9 * launches_of(gpu, speaking, *command, tmp_path / "whole.mp4"))
    code, out, err = speaking(*command, tmp_path / "cut.mp4")
    assert (code, out) == (1, "")
    assert "Traceback" not in err
    assert "The device has failed: CUDA error: an illegal memory" in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "whole.mp4"]


# -- what a job leaves behind ------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_graph_of_a_job_holds_memory_beside_those_of_the_next(
    gpu, speaking, tmp_path, monkeypatch, captured
):
    """Though nobody looks for garbage between them."""
    monkeypatch.setattr("musetalk_cli.engine.faces.CAPTURED_AFTER", 1)
    gc.collect()
    gc.disable()
    try:
        code, _, err = speaking("generate", "--batch-size", "4", "--output", tmp_path / "out.mp4")
        assert code == 0, err
        assert captured
        assert [graph() for graph in captured] == [None] * len(captured)
    finally:
        gc.enable()
