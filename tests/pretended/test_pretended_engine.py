"""The engine's path for CUDA: frames beside the CPU's, and what it waits for."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import GpuPath
from musetalk_cli.engine.uploads import Uploads
from musetalk_cli.ops.tables import reflected
from musetalk_cli.ops.torch_ops import gpu_image_blending
from pretended.cuda import pretended_gpu
from pretended.device import Pace
from pretended.speaking import FRAMES, JOB, apart, check_waits, make_engine, speak
from pretended.tensors import DeviceMismatchError

SHARPENED = replace(JOB, sharpen=Sharpen())


@pytest.mark.parametrize(
    ("dtype", "pace", "levels"),
    [
        (torch.float32, Pace.LATE, 1),
        (torch.float16, Pace.LATE, 2),
        pytest.param(torch.float32, Pace.EARLY, 1, marks=pytest.mark.slow),
        pytest.param(torch.float16, Pace.EARLY, 2, marks=pytest.mark.slow),
    ],
)
def test_sessions_together_are_the_cpus(guard_folder, on_gpu, avatars, expected, dtype, pace, levels):
    with pretended_gpu(guard_folder, pace):
        spoken = speak(make_engine(on_gpu(dtype)), *avatars)
    assert [len(frames) for frames in spoken.frames] == [FRAMES, FRAMES]
    assert apart(spoken, expected) <= levels
    assert (spoken.engine.images.path, spoken.engine.images.fallbacks) == ("gpu", 0)


def test_the_loop_waits_for_the_patches_of_the_oldest_batch_and_for_nothing_else(gpu, on_gpu, avatars):
    """Sharpened, since that has tables of its own."""
    spoken = speak(make_engine(on_gpu(), SHARPENED), *avatars)
    check_waits(spoken)
    assert spoken.engine.images.fallbacks == 0


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "levels"), [(torch.float32, 3), (torch.float16, 5)])
def test_sharpened_frames_are_the_cpus(gpu, on_gpu, on_cpu, avatars, dtype, levels):
    """A level of a face is up to 2.2 of the sharpened one, and at the threshold some values jump."""
    spoken = speak(make_engine(on_gpu(dtype), SHARPENED), *avatars)
    assert apart(spoken, speak(make_engine(on_cpu, SHARPENED), *avatars), share=0.999) <= levels


class WithWait(GpuPath):
    """Looks at the marks before they are down."""

    def marks(self, faces):
        assert faces.all()
        return super().marks(faces)


def test_a_planted_wait_is_told_with_its_caller(gpu, on_gpu, avatars):
    spoken = speak(make_engine(on_gpu(), images=WithWait(torch.device("cuda"), 3)), avatars[0], seconds=0.2)
    with pytest.raises(
        AssertionError, match=r"_local_scalar_dense in marks \(pretended/test_pretended_engine"
    ):
        check_waits(spoken)


@pytest.mark.slow
def test_an_event_that_is_not_waited_for_spoils_frames(gpu, on_gpu, avatars, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda event: None)
    assert apart(speak(make_engine(on_gpu()), *avatars), expected) > 50


def test_a_table_left_on_the_host_is_a_failure_and_no_slow_success(gpu, on_gpu, avatars, monkeypatch):
    def left(size, radius, device):
        return torch.from_numpy(reflected(size, radius))

    monkeypatch.setattr("musetalk_cli.ops.torch_ops._reflected", left)
    with pytest.raises(DeviceMismatchError, match="on the same device"):
        speak(make_engine(on_gpu(), SHARPENED), avatars[0], seconds=0.2)


def test_latents_left_on_the_host_are_refused_by_the_networks(gpu, on_gpu, avatars, monkeypatch):
    monkeypatch.setattr(Uploads, "pack", partial(Uploads.pack, Uploads(torch.device("cpu"))))
    with pytest.raises(DeviceMismatchError, match="on the same device"):
        speak(make_engine(on_gpu()), avatars[0], seconds=0.2)


@pytest.mark.parametrize("call", [*(pytest.param(call, marks=pytest.mark.slow) for call in (1, 9)), 14])
def test_image_steps_without_memory_go_on_on_the_cpu(
    gpu, on_gpu, avatars, expected, monkeypatch, caplog, call
):
    calls = iter(range(1, 1000))

    def scarce(*args, **kwargs):
        if next(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return gpu_image_blending(*args, **kwargs)

    monkeypatch.setattr("musetalk_cli.ops.torch_ops.gpu_image_blending", scarce)
    spoken = speak(make_engine(on_gpu()), *avatars)
    assert apart(spoken, expected) <= 1
    assert (spoken.engine.images.path, spoken.engine.images.fallbacks) == ("cpu", 1)
    assert caplog.text.count("go on on the CPU: CUDA out of memory") == 1


@pytest.mark.slow
def test_faces_that_run_over_in_half_are_made_again_in_fp32(gpu, on_gpu, on_cpu, avatars, caplog):
    """1e5 is infinite in fp16; the copy of the networks in fp32 lies on the device too."""
    latents = avatars[0].latents.clone()
    latents[1] = 1e5
    large = replace(avatars[0], latents=latents)
    spoken = speak(make_engine(on_gpu(torch.float16)), large)
    assert (spoken.engine.repair.lost, spoken.engine.images.fallbacks) == (0, 0)
    assert spoken.engine.repair.remade > 1
    exact = speak(make_engine(on_cpu), large)
    for ours, theirs in zip(spoken.frames[0], exact.frames[0], strict=True):
        assert np.abs(ours.astype(int) - theirs).mean() < 1
    assert caplog.text.count("made again in fp32") == 1
