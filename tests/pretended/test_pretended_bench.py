"""What the bench measures of a batch on a GPU: each image path under its name, and the networks as graphs."""

from dataclasses import replace

import pytest
import torch

from musetalk_cli.bench.measure import Roofline
from musetalk_cli.bench.published import PublishedFrames
from musetalk_cli.bench.stages import Stages
from musetalk_cli.config import JobConfig

from .speaking import make_engine

JOB = JobConfig(batch_sizes=(2,))
ROOFLINE = Roofline(tflops=1.0, gbytes_per_s=100.0, link_gbytes_per_s=1.0)


def measured(bundle, avatar, job=JOB):
    stages = Stages(make_engine(bundle, job), avatar, ROOFLINE, 0.0, PublishedFrames(avatar))
    with torch.inference_mode():
        return stages.measure(2)


@pytest.mark.slow
def test_a_gpu_has_its_own_column_and_its_graphs(gpu, on_gpu, avatars):
    batch = measured(on_gpu(), avatars[0])
    assert {"cpu", "gpu"} <= set(batch.image_ms)
    assert "tensor" not in batch.image_ms
    assert batch.graph_ms > 0
    assert batch.networks_ms == min(batch.unet_ms + batch.vae_ms, batch.graph_ms)
    image_ms = min(sum(steps.values()) for steps in batch.image_ms.values())
    assert batch.frames_per_s == pytest.approx(2e3 / (batch.networks_ms + image_ms))
    # what the networks are timed by, stage by stage, is no graph: the published order has none
    assert batch.published_fps == pytest.approx(
        2e3 / (batch.unet_ms + batch.vae_ms + batch.published_image_ms)
    )


@pytest.mark.slow
def test_without_graphs_there_is_none(gpu, on_gpu, avatars):
    batch = measured(on_gpu(), avatars[0], replace(JOB, graphs=False))
    assert batch.graph_ms is None
    assert batch.networks_ms == batch.unet_ms + batch.vae_ms
