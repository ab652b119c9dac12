"""The networks of a preparation on a pretended GPU, beside the CPU."""

import numpy as np
import pytest
import torch

from musetalk_cli.face.parsing import LABELS, FaceParser
from musetalk_cli.nets.generator import FaceEncoder

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_latents_of_faces_are_the_cpus_and_come_to_the_host(gpu, on_gpu, on_cpu):
    faces = pictures(2, 256, 256, 3)
    latents = FaceEncoder(on_gpu())(faces)
    assert latents.device == CPU
    torch.testing.assert_close(latents, FaceEncoder(on_cpu)(faces), rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """The folder of a small random network that parses faces."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    folder = tmp_path_factory.mktemp("parser")
    sizes = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
    config = SegformerConfig(**sizes, decoder_hidden_size=16, id2label=dict(enumerate(LABELS)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SegformerForSemanticSegmentation(config).save_pretrained(folder)
    return folder


def test_labels_of_pixels_are_the_cpus(gpu, parser):
    crops = [pictures(120, 90, 3), pictures(64, 80, 3)]
    labels, expected = FaceParser(parser, CUDA)(crops), FaceParser(parser, CPU)(crops)
    assert labels.shape == expected.shape == (2, 512, 512)
    assert (labels != expected).mean() < 1e-3
    assert len(np.unique(labels)) > 1
