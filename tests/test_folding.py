"""What is folded computes what the library computes."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from musetalk_cli.nets import modules, random_v15
from musetalk_cli.nets.folding import fold
from musetalk_cli.nets.generator import Generator, position_table

TIMESTEP = ("arange", "sin", "cos", "div")


class Launched(TorchDispatchMode):
    """Collects the names of all operators."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name().split("::")[1].split(".")[0])
        return func(*args, **(kwargs or {}))


def small_unet(**config):
    """Two blocks, of which one hears, with random weights and biases."""
    small = {"block_out_channels": [8, 16], "norm_num_groups": 2, "layers_per_block": 1}
    small |= {"cross_attention_dim": 8, "attention_head_dim": 2}
    small["down_block_types"] = ["DownBlock2D", "CrossAttnDownBlock2D"]
    small["up_block_types"] = ["CrossAttnUpBlock2D", "UpBlock2D"]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = modules.build_unet(random_v15.unet_config() | small | config, random_v15.NOWHERE)
    return unet.eval().requires_grad_(False)


def small_vae(**config):
    small = {"block_out_channels": [4, 4, 8, 8], "norm_num_groups": 2, "layers_per_block": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = modules.build_vae(random_v15.vae_config() | small | config, random_v15.NOWHERE)
    return vae.eval().requires_grad_(False)


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def predict(unet, layout=torch.contiguous_format):
    sample = numbers(2, 8, 16, 16).to(unet.dtype, memory_format=layout)
    tokens = numbers(2, 5, unet.config.cross_attention_dim).to(unet.dtype)
    with torch.inference_mode():
        return unet(sample, torch.tensor(0), encoder_hidden_states=tokens, return_dict=False)[0]


def operators(work):
    with Launched() as launched:
        work()
    return launched.names


def reconstruct(vae, layout=torch.contiguous_format):
    with torch.inference_mode():
        latents = vae.encode(numbers(2, 3, 32, 32).contiguous(memory_format=layout)).latent_dist.mode()
        return latents, vae.decode(latents).sample


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_unet_without_its_timestep_is_the_librarys_at_timestep_0(layout):
    unet = small_unet().to(memory_format=layout)
    expected, found = predict(unet, layout), predict(fold(unet), layout)
    assert found.stride() == expected.stride()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, numbers(*expected.shape), atol=1e-2)


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_vae_is_the_librarys_to_the_bit(attention, layout):
    vae = small_vae(mid_block_add_attention=attention).to(memory_format=layout)
    for expected, found in zip(reconstruct(vae, layout), reconstruct(fold(vae), layout), strict=True):
        assert torch.equal(found, expected)


def test_the_timestep_is_the_only_thing_that_rounds_otherwise():
    """With a timestep that gives zeros, a UNet is the library's to the bit too."""
    unet = small_unet()
    for name, part in unet.named_modules():
        if name.endswith("time_emb_proj"):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    assert torch.equal(predict(fold(unet)), predict(unet))


def test_neither_timestep_nor_division_is_left():
    for network, use in ((small_unet(), predict), (small_vae(), reconstruct)):
        folded = fold(network)
        assert not set(TIMESTEP) & set(operators(lambda: use(folded)))  # noqa: B023 - called at once
        assert set(TIMESTEP) & set(operators(lambda: use(network)))  # noqa: B023
    unet = small_unet()
    folded = fold(unet)
    blocks = sum(hasattr(part, "time_emb_proj") for part in unet.modules())
    added = [operators(lambda: predict(one)).count("add") for one in (unet, folded)]  # noqa: B023
    assert blocks == added[0] - added[1] == 8


@pytest.mark.parametrize(
    "config",
    [
        {"resnet_time_scale_shift": "scale_shift"},
        {"time_embedding_act_fn": "silu"},
        {"mid_block_scale_factor": 2.0},
        {"use_linear_projection": True},
        {"down_block_types": ["ResnetDownsampleBlock2D", "CrossAttnDownBlock2D"]},
        {"up_block_types": ["CrossAttnUpBlock2D", "ResnetUpsampleBlock2D"]},
        {"mid_block_type": "UNetMidBlock2D"},
    ],
)
def test_what_is_not_known_stays_as_it_is(config, caplog):
    unet = small_unet(**config)
    with caplog.at_level(logging.DEBUG, "musetalk_cli"):
        folded = fold(unet)
    assert "not known" in caplog.text or "not of a known kind" in caplog.text
    torch.testing.assert_close(predict(folded), predict(unet), rtol=1e-5, atol=1e-5)


def test_the_network_is_not_changed_and_its_weights_are_shared():
    unet = small_unet()
    before = copy.deepcopy(unet.state_dict())
    folded = fold(unet)
    predict(folded)
    assert unet.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())
    own = {value.data_ptr() for value in folded.state_dict().values()}
    own -= {value.data_ptr() for value in unet.state_dict().values()}
    assert len(own) == sum(hasattr(part, "time_emb_proj") for part in unet.modules())


def test_in_half_the_timestep_is_rounded_once():
    """Its sum is that of fp32, rounded; each of the library's steps towards it rounds."""
    unet = small_unet().half()
    exact = fold(copy.deepcopy(unet).float())
    for name, bias in fold(unet).named_parameters():
        if name.endswith("conv1.bias"):
            assert torch.equal(bias, exact.get_parameter(name).half())


@pytest.mark.slow
def test_a_generator_made_exact_folds_in_fp32(golden_bundle, golden_avatar):
    half = {name: copy.deepcopy(getattr(golden_bundle, name)).half() for name in ("unet", "vae")}
    wide = {name: copy.deepcopy(network).float() for name, network in half.items()}
    tokens, latents = (
        numbers(1, 10 * golden_bundle.layers, golden_bundle.token_width),
        golden_avatar.latents[:1],
    )
    exact = Generator(replace(golden_bundle, dtype=torch.float16, **half)).exact()
    expected = Generator(replace(golden_bundle, **wide))
    assert torch.equal(exact.unet(tokens, latents), expected.unet(tokens, latents))
    with torch.inference_mode():
        states = tokens + position_table(*tokens.shape[1:])
        library = wide["unet"](latents, 0, encoder_hidden_states=states, return_dict=False)[0]
    torch.testing.assert_close(exact.unet(tokens, latents), library, rtol=1e-4, atol=1e-4)
