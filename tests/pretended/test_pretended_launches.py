"""What each stage of a batch launches on the device, held to a table.

A launch costs the host some microseconds, which a fast device waits for. An operator counts as one here, and
may be several kernels. Where more are meant, `MUSETALK_RENEW_LAUNCHES=1` writes the table anew.
"""

import importlib.util
import json
import os
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import GpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.fused import FusedPath
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.generator import Generator
from musetalk_cli.ops.drawn import are_finite, levels
from musetalk_cli.timeline import SAMPLE_RATE
from pretended.cuda import pretended_gpu
from pretended.full_size import full_size
from pretended.kernels import with_triton

TABLE = Path(__file__).parent.parent / "data" / "launches.json"
BATCH = 13
SIZES = {"one size of face": 1, "seven sizes of face": 7}
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def counted(guard_folder):
    """Launches by stage."""
    found = count_networks(guard_folder)
    if importlib.util.find_spec("triton") is not None:
        fused = count_networks(guard_folder, fused=True)
        found |= {f"{stage}, fused": fused[stage] for stage in ("unet", "vae")}
    for name, sizes in SIZES.items():
        found |= {f"{stage}, {name}": count for stage, count in count_images(guard_folder, sizes).items()}
    if importlib.util.find_spec("triton") is not None:
        for name, sizes in SIZES.items():
            found |= {f"{stage}, {name}": count for stage, count in count_fused(guard_folder, sizes).items()}
    if os.environ.get("MUSETALK_RENEW_LAUNCHES"):
        TABLE.write_text(json.dumps({"batch": BATCH, "launches": found}, indent=2) + "\n")
    return found


def count_networks(folder, fused=False):
    """The full-size networks in fp16, without their numbers."""
    kernels = with_triton(norms=True) if fused else nullcontext()
    with pretended_gpu(folder, inside=torch.device("meta")) as gpu, kernels:
        bundle = full_size()
        encode, generator = AudioEncoder(bundle), Generator(bundle)
        request = EncodeRequest(np.zeros(SAMPLE_RATE, np.float32), range(50))
        tokens = torch.empty(BATCH, 10 * bundle.layers, bundle.token_width, device=CUDA)
        latents = torch.empty(BATCH, 8, 32, 32, device=CUDA, dtype=bundle.dtype)
        return {
            "features": count(gpu, lambda: encode([request])),
            "unet": count(gpu, lambda: generator.unet(tokens, latents)),
            "vae": count(gpu, lambda: generator.draw(latents[:, :4])),
        }


def count_images(folder, sizes):
    """The image steps of faces of so many sizes."""
    avatar = synthetic_avatar(320, 180, 100, 2 * sizes)
    with pretended_gpu(folder) as gpu:
        path = GpuPath(CUDA, sharpen=Sharpen())
        placed = path.place(avatar)
        by_size = {(target.face.width, target.face.height): target for target in placed}
        targets = [[*by_size.values()][number % sizes] for number in range(BATCH)]
        assert len({(target.face.width, target.face.height) for target in targets}) == sizes
        drawn, made = torch.zeros(BATCH, 3, 256, 256, device=CUDA), []
        return {
            "resize": count(gpu, lambda: made.append(path.resize(levels(drawn), targets))),
            "sharpen": count(gpu, lambda: made.append(path.sharpen(made[-1], Sharpen()))),
            "blend": count(gpu, lambda: made.append(path.blend(made[-1], targets))),
            "download": count(gpu, lambda: path.download([*made[-1], path.marks(are_finite(drawn))])),
        }


def count_fused(folder, sizes):
    """The same in one launch; what it costs on a device does not depend on how large the faces are."""
    avatar = synthetic_avatar(96, 64, 32, 2 * sizes)
    with pretended_gpu(folder) as gpu, with_triton():
        path = FusedPath(CUDA, sharpen=Sharpen())
        placed = path.place(avatar)
        by_size = {(spot.descriptor.face_width, spot.descriptor.face_height): spot for spot in placed}
        spots = [[*by_size.values()][number % sizes] for number in range(BATCH)]
        assert len({spot.descriptor[-2:] for spot in spots}) == sizes
        drawn, spans = Drawn(torch.zeros(BATCH, 3, 256, 256, device=CUDA)), {}

        @contextmanager
        def span(name):
            before = gpu.launches.total()
            yield
            spans[name] = gpu.launches.total() - before

        path.compose(drawn, spots, Sharpen(), span)
        return {"compose": spans["compose"], "download after compose": spans["download"]}


def count(gpu, work):
    """What some work launches, once its tables are there."""
    before = gpu.launches.total()
    work()
    return gpu.launches.total() - before


STAGES = ["features", "unet", "vae", "unet, fused", "vae, fused"]
STAGES += [f"{stage}, {name}" for name in SIZES for stage in ("resize", "sharpen", "blend", "download")]
STAGES += [f"{stage}, {name}" for name in SIZES for stage in ("compose", "download after compose")]


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_launches_more_than_the_table_says(counted, stage):
    table = json.loads(TABLE.read_text())
    assert table["batch"] == BATCH
    if "compose" in stage or "fused" in stage:
        pytest.importorskip("triton", reason="no Triton here: pip install 'musetalk-cli[dev]'")
    assert counted[stage] <= table["launches"][stage], (
        f"{stage} launches {counted[stage]} operators for a batch of {BATCH}, and {table['launches'][stage]} "
        "before. If they are worth it, run this file with MUSETALK_RENEW_LAUNCHES=1 and commit the table."
    )
