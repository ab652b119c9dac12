"""What the networks launch is counted without their numbers, and what is predicted of it is arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from musetalk_cli.bench.counting import HALF, META, count, without_numbers
from musetalk_cli.bench.hardware import DATA_SHEETS, DataSheet, TimeModel, kernel_count
from musetalk_cli.bench.measure import count_flops
from musetalk_cli.bench.predict import predict
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig
from musetalk_cli.measure.work import Launch, Work
from musetalk_cli.nets import modules
from musetalk_cli.nets.audio_encoder import AudioEncoder, EncodeRequest
from musetalk_cli.nets.bundle import Bundle
from musetalk_cli.nets.generator import Generator
from musetalk_cli.nets.random_v15 import NOWHERE, encoder_config, unet_config, vae_config

TABLE = Path(__file__).parent / "data" / "launches.json"
UNET_GFLOP, VAE_GFLOP = 177.8, 622.2
"""Of the published networks, for a frame."""


def build(dtype=HALF, make=modules.on_meta):
    """The networks of v1.5 in full size, without their numbers."""
    with modules.quiet():
        unet = make(lambda: modules.build_unet(unet_config(), NOWHERE)).to(dtype).eval()
        vae = make(lambda: modules.build_vae(vae_config(), NOWHERE)).to(dtype).eval()
        encoder = make(lambda: modules.build_encoder(encoder_config(), NOWHERE)).to(dtype).eval()
    extractor = modules.build_feature_extractor({}, NOWHERE)
    return Bundle("random-v15", "v15", unet, vae, encoder, extractor, META, dtype)


@pytest.fixture(scope="module")
def full_size():
    return without_numbers(build())


@pytest.mark.slow
def test_a_cpu_counts_all_800_gflop_of_a_frame():
    """On a CPU that computes nothing, but takes the operators that a CPU takes, its attention among them."""
    with modules.quiet(), FakeTensorMode(), torch.inference_mode():
        unet = modules.build_unet(unet_config(), NOWHERE)
        vae = modules.build_vae(vae_config(), NOWHERE)
        latents, tokens = torch.empty(1, 8, 32, 32), torch.empty(1, 50, 384)
        timestep = torch.zeros(())
        of_unet = count_flops(lambda: unet(latents, timestep, encoder_hidden_states=tokens)) / 1e9
        of_vae = count_flops(lambda: vae.decode(latents[:, :4])) / 1e9
    assert (of_unet, of_vae) == pytest.approx((UNET_GFLOP, VAE_GFLOP), abs=0.05)


def test_the_same_is_counted_operator_by_operator(full_size):
    batch = json.loads(TABLE.read_text())["batch"]
    # as the engine runs them on a GPU: what is counted on the pretended one, fused
    table = json.loads(TABLE.read_text())["launches"]
    launches = {name: table.get(f"{name}, fused", table[name]) for name in ("unet", "vae", "features")}
    generator, encode = Generator(full_size), AudioEncoder(full_size)
    tokens = torch.empty(batch, 50, 384, device=META)
    latents = torch.empty(batch, 8, 32, 32, device=META, dtype=HALF)
    works = {
        "unet": count(Generator.unet, generator, tokens, latents),
        "vae": count(Generator.draw, generator, latents[:, :4]),
        "features": count(
            AudioEncoder.__call__, encode, [EncodeRequest(np.zeros(16_000, np.float32), range(50))]
        ),
    }
    for name, gflop in (("unet", UNET_GFLOP), ("vae", VAE_GFLOP)):
        # what the product leaves out of the UNet is less than a thousandth of it
        assert works[name].flops / batch / 1e9 == pytest.approx(gflop, rel=1e-3)
    for name, work in works.items():
        # the transform of a sound is less on `meta`
        least = 0.7 if name == "features" else 0.99
        assert least * launches[name] <= len(work.launches) <= launches[name], name
    assert not {"native_group_norm", "native_layer_norm", "silu", "gelu"} & set(works["unet"].by_name())
    assert set(works["vae"].by_name()) >= {"norm_group", "norm_part", "add"}, (
        "and nothing of Triton is needed"
    )
    weights = sum(weight.nbytes for weight in full_size.unet.parameters())
    assert weights < works["unet"].bytes < 10 * weights


def test_the_networks_stay_as_they_are(golden_bundle):
    before = {name: weight.data_ptr() for name, weight in golden_bundle.unet.named_parameters()}
    blank = without_numbers(golden_bundle)
    for network in (blank.unet, blank.vae, blank.audio_encoder):
        assert {weight.device for weight in network.parameters()} == {META}
    assert {weight.device.type for weight in golden_bundle.unet.parameters()} == {"cpu"}
    assert {name: weight.data_ptr() for name, weight in golden_bundle.unet.named_parameters()} == before
    assert golden_bundle.dtype == torch.float32


def launch(name="add", flops=0, moved=0, written=0, inputs=2):
    return Launch(name, flops, moved, written, inputs)


@pytest.mark.parametrize(
    ("one", "seconds"),
    [
        (launch(), 3e-6),
        (launch("mm", flops=int(65e12)), 1.0),
        (launch(moved=int(85e9)), 1.0),
        (launch("mm", flops=int(65e12), moved=int(170e9)), 2.0),
        (launch("convolution", int(65e12), int(8.5e9), int(4.25e9), 2), 1.0),
        # its bias takes the result and gives it again
        (launch("convolution", int(65e12), int(8.5e9), int(4.25e9), 3), 1.1),
        # a copy there, statistics, nothing to speak of, the norm, a copy back
        (launch("native_group_norm", 0, int(17e9), int(8.5e9), 3), 0.2 + 0.1 + 3e-6 + 0.2 + 0.2),
    ],
)
def test_a_kernel_takes_the_longest_of_three(one, seconds):
    model = TimeModel(DataSheet("a GPU", 100, 100, "here"))
    assert model.seconds(Work([one])) == pytest.approx(seconds)
    assert model.seconds(Work([one, one])) == pytest.approx(2 * seconds)


def test_kernels_are_those_of_cuda():
    work = Work([launch(), launch("convolution", inputs=2), launch("convolution", inputs=3)])
    assert kernel_count(work) == 4
    assert kernel_count(Work([launch("native_group_norm", inputs=3)])) == 5


@pytest.mark.slow
def test_a_faster_gpu_is_predicted_to_be_faster_and_every_peak_has_its_source(golden_bundle):
    avatar, job = synthetic_avatar(96, 64, 32, 4), JobConfig(batch_sizes=(2, 4))
    slow, fast = (predict(gpu, golden_bundle, avatar, job, 1500) for gpu in ("a100", "h200"))
    assert [batch.size for batch in fast.batches] == [1, 2, 4]
    for one, other in zip(slow.batches, fast.batches, strict=True):
        assert one.frames_per_s <= other.frames_per_s
        assert one.kernels == other.kernels > 0
    for sheet in DATA_SHEETS.values():
        assert "datasheet" in sheet.source
