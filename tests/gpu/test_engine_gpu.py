"""Whole frames on a GPU against the CPU."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade import passed_through

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.graphs import Recorder
from musetalk_cli.engine.uploads import Uploads, places_of
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.bundle import load_bundle
from musetalk_cli.nets.generator import Generator
from musetalk_cli.ops.drawn import levels
from musetalk_cli.timeline import mirrored

pytestmark = pytest.mark.gpu
JOB = JobConfig(sharpen=None)


def frames_of(bundle, job, sound, *avatars, warm=False):
    """Speak with every avatar through one engine at once."""
    device = bundle.device if bundle.device.type == "cuda" else None
    engine = Engine(bundle, job, StageStats(MonotonicClock(), device))
    if warm:
        engine.warm_up(avatars[0])
    sessions = [engine.open(avatar, Fraction(25), Fraction(1, 2), None, 16_000, 1) for avatar in avatars]
    for session in sessions:
        session.hear(sound[:, None], 0.0)
        session.end_sound(0.0)
    taken = [[] for _ in sessions]
    while engine.step():
        for session, frames in zip(sessions, taken, strict=True):
            while session.untaken:
                frames.append(session.take().image)
    assert all(session.is_done for session in sessions)
    assert engine.images.fallbacks == 0
    return taken, engine


@pytest.fixture(scope="module")
def cuda_bundle(golden):
    def load(dtype):
        return load_bundle(str(golden / "models"), Path(), torch.device("cuda"), dtype)

    return load


@pytest.fixture(scope="module")
def on_cpu(golden_bundle, golden_avatar, golden_sound):
    return frames_of(golden_bundle, JOB, golden_sound, golden_avatar)[0][0]


@pytest.mark.parametrize("image_ops", ["gpu", "cpu"])
def test_frames_in_fp32_are_within_one_level(cuda_bundle, golden_avatar, golden_sound, on_cpu, image_ops):
    job = replace(JOB, image_ops=image_ops)
    [ours], engine = frames_of(cuda_bundle(torch.float32), job, golden_sound, golden_avatar)
    assert engine.images.path == image_ops
    assert len(ours) == len(on_cpu) == 25
    for one, other in zip(ours, on_cpu, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_frames_in_half_precision_are_close(cuda_bundle, golden_avatar, golden_sound, on_cpu, dtype):
    [ours], _ = frames_of(cuda_bundle(dtype), JOB, golden_sound, golden_avatar)
    for one, other in zip(ours, on_cpu, strict=True):
        error = np.mean((one.astype(np.float64) - other) ** 2)
        assert 10 * np.log10(255**2 / error) >= (40 if dtype == torch.float16 else 25)


def test_sessions_together_equal_each_alone(cuda_bundle, golden_avatar, golden_sound):
    """More batches in the air than one, of two avatars; the pinned slots must not mix them up."""
    bundle, job = cuda_bundle(torch.float32), replace(JOB, batch_sizes=(4,))
    avatars = [golden_avatar, synthetic_avatar(480, 360, 160, 7)]
    together, engine = frames_of(bundle, job, golden_sound, *avatars)
    for frames, avatar in zip(together, avatars, strict=True):
        [alone], _ = frames_of(bundle, job, golden_sound, avatar)
        for one, other in zip(frames, alone, strict=True):
            assert np.abs(one.astype(int) - other).max() <= 1
    summary = engine.stats.summary(())
    assert summary["unet"].count == summary["vae"].count > 0
    assert summary["unet"].total_ms > 0


@pytest.mark.parametrize("numbers", [{0}, {1, 2}, {0, 1, 3}])
def test_frames_without_a_face_pass_through(cuda_bundle, golden_avatar, golden_sound, on_cpu, numbers):
    job, avatar = replace(JOB, batch_sizes=(1, 2, 4)), passed_through(golden_avatar, numbers)
    together, _ = frames_of(cuda_bundle(torch.float32), job, golden_sound, avatar, avatar)
    for ours in together:
        assert len(ours) == len(on_cpu)
        for number, (one, animated) in enumerate(zip(ours, on_cpu, strict=True)):
            source = mirrored(number, avatar.meta.frames)
            if source in numbers:
                assert np.array_equal(one, avatar.frames[source])
            else:
                assert np.abs(one.astype(int) - animated).max() <= 1


def test_a_warm_up_covers_every_batch_size(cuda_bundle, golden_avatar):
    bundle = cuda_bundle(torch.float16)
    engine = Engine(bundle, JobConfig(), StageStats(MonotonicClock(), bundle.device))
    engine.warm_up(golden_avatar)
    assert engine.images.fallbacks == 0
    assert engine.faces.graphed == engine.batch_sizes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graphs_give_what_single_launches_give(cuda_bundle, dtype):
    """Also where batches of several sizes take turns, which share their memory; within one level."""
    bundle = cuda_bundle(dtype)
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 10 * bundle.layers, bundle.token_width, generator=random).cuda()
    latents = torch.randn(3, 8, 32, 32, generator=random).to("cuda", dtype)
    graphed, single = (FaceMaker(Generator(bundle), StageStats()) for _ in range(2))
    with torch.inference_mode():
        for faces in (graphed, single):
            faces.take_sizes((1, 3))
            for size in faces.sizes:
                faces.make([tokens[0]] * size, [latents[0]] * size)
        recorder = Recorder(bundle.device)
        graphed.capture(recorder, tokens[0], latents[0], graphed.sizes, lambda *_: None)
        assert graphed.graphed == (1, 3)
        for count in (1, 3, 2, 1):
            ours, theirs = (
                levels(faces.make([*tokens[:count]], [*latents[:count]]).pictures).cpu()
                for faces in (graphed, single)
            )
            assert len(ours) >= count
            assert (ours.int() - theirs.int()).abs().max() <= 1


def test_frames_of_graphs_are_those_of_single_launches(cuda_bundle, golden_avatar, golden_sound):
    bundle, job, taken = cuda_bundle(torch.float32), replace(JOB, batch_sizes=(1, 4)), []
    for graphs in (True, False):
        [frames], engine = frames_of(
            bundle, replace(job, graphs=graphs), golden_sound, golden_avatar, warm=True
        )
        assert bool(engine.faces.graphed) is graphs
        taken.append(frames)
    for one, other in zip(*taken, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def test_what_is_uploaded_is_whole_while_the_device_is_busy():
    random = np.random.default_rng(0)
    arrays = [random.integers(0, 256, size, np.uint8) for size in (9_000_001, 7, 5_000_000)]
    busy = torch.randn(2048, 2048, device="cuda")
    for _ in range(5):
        busy = busy @ busy.T / 2048
    packed = Uploads(torch.device("cuda"), 1 << 20).pack(arrays).cpu().numpy()
    for at, array in zip(places_of(arrays)[0], arrays, strict=True):
        assert np.array_equal(packed[at : at + len(array)], array)
