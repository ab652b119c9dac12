"""Triton's kernels: on a GPU at the sizes of v1.5, and small on the pretended one."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from pretended.kernels import with_triton
from torch import nn

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.fused import FusedPath, image_path
from musetalk_cli.nets.device import conv_layout
from musetalk_cli.nets.fusion import works
from musetalk_cli.ops.norms import eager_norm, fused_add, fused_norm

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
REAL = torch.cuda.is_available()
UNTIMED = lambda _: nullcontext()  # noqa: E731 - a span of any name


@pytest.fixture(autouse=True)
def _triton(_some_gpu):
    """The pretended GPU has Triton; a real one has it or has not."""
    pytest.importorskip("triton", reason="no Triton here")
    with nullcontext() if REAL else with_triton(norms=True):
        yield


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sharpen", [None, Sharpen(), Sharpen(0.8, 2.5, 3.0)], ids=str)
def test_image_steps_are_one_launch_and_the_cpus(sharpen, dtype):
    path = image_path(CUDA, 3, sharpen, dtype)
    assert isinstance(path, FusedPath)
    avatar = synthetic_avatar(512, 640, 320, 13) if REAL else synthetic_avatar(96, 64, 32, 3)
    values = np.random.default_rng(0).uniform(-1.1, 1.1, (len(avatar.frames), 3, 256, 256))
    faces = torch.from_numpy(values).to(dtype, memory_format=conv_layout(CUDA, dtype))
    made, expected = (
        one.compose(Drawn(faces.to(device)), one.place(avatar), sharpen, UNTIMED)()
        for one, device in ((path, CUDA), (CpuPath(), torch.device("cpu")))
    )
    differ = np.concatenate([(ours != theirs).ravel() for ours, theirs in zip(made, expected, strict=True)])
    assert differ.mean() <= (1e-4 if sharpen else 0)


SHAPES = [
    (320, 32),
    (960, 32),
    (1280, 16),
    (2560, 8),
    (1280, 4),
    (512, 32),
    (512, 64),
    (256, 128),
    (128, 256),
]
"""Channels and sides of the pictures of both networks."""


# the interpreter cuts what does not fit into bf16, where a GPU rounds
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16] if REAL else [torch.float16])
@pytest.mark.parametrize(("channels", "side"), SHAPES if REAL else [(64, 4)])
def test_norms_and_sums_are_nearer_to_float64_than_tensor_operations(channels, side, dtype):
    assert works(CUDA, dtype)
    numbers = torch.Generator().manual_seed(channels)
    picture = (torch.randn(2, channels, side, side, generator=numbers) * 3 + 10).to(dtype)
    added = torch.randn(channels, generator=numbers).to(dtype)
    norm = nn.GroupNorm(32, channels, eps=1e-6).requires_grad_(False)
    exact = eager_norm(picture.double(), norm.double(), added.double(), silu=True)
    norm = norm.to(CUDA, dtype)
    given = picture.to(CUDA, memory_format=torch.channels_last)
    ours, theirs = (
        (run(given, norm, added.to(CUDA), silu=True).cpu().double() - exact).abs().max()
        for run in (fused_norm, eager_norm)
    )
    assert ours <= theirs + 1e-6
    total = fused_add(given, given, added.float().to(CUDA)).cpu()
    assert torch.equal(total, (2 * picture.float() + added.float()[:, None, None]).to(dtype))
