"""Norms and sums in one pass; without a GPU Triton's interpreter runs the kernels."""

import copy

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from test_folding import operators, predict, reconstruct, small_unet, small_vae
from torch import nn

from musetalk_cli.nets.folding import fold
from musetalk_cli.nets.fusion import FusedBlock, FusedNorm, FusedResnet, fuse, replace
from musetalk_cli.ops import norms
from musetalk_cli.ops.norms import (
    eager_gate,
    eager_norm,
    fits,
    fused_add,
    fused_gate,
    fused_norm,
    fused_row_norm,
)

pytest.importorskip("triton", reason="no Triton here: pip install 'musetalk-cli[dev]'")

# the kernels' exp(-x) may be infinite, and 1 / (1 + exp(-x)) is then 0; only the interpreter speaks of it
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAST = torch.channels_last


def numbers(*shape, mean=0.0, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3 + mean


def group_norm(channels, groups):
    norm = nn.GroupNorm(groups, channels, eps=1e-6)
    norm.weight.data, norm.bias.data = numbers(channels, seed=1), numbers(channels, seed=2)
    return norm.requires_grad_(False)


def errors(picture, norm, added, silu):
    """The largest error of the kernels, and of tensor operations, to float64."""
    exact_norm = group_norm(norm.num_channels, norm.num_groups)
    exact_norm.load_state_dict(norm.state_dict())
    exact_added = None if added is None else added.double()
    exact = eager_norm(picture.double(), exact_norm.double(), exact_added, silu=silu)
    ours = fused_norm(*(one if one is None else one.to(DEVICE) for one in (picture, norm, added)), silu=silu)
    assert ours.shape == picture.shape
    assert ours.dtype == picture.dtype
    theirs = eager_norm(picture.cpu(), norm.cpu(), added, silu=silu)
    return [(one.cpu().double() - exact).abs().max().item() for one in (ours, theirs)]


SHAPES = [(40, 4, (6, 5)), (12, 2, (3, 700)), pytest.param(64, 32, (2, 2), marks=pytest.mark.slow)]
"""Channels, groups and sides: groups of 10, 2 and 6 channels; the last takes more than one look."""


@pytest.mark.parametrize("mean", [0.0, 40.0])
@pytest.mark.parametrize(("channels", "groups", "sides"), SHAPES)
def test_in_half_a_norm_is_nearer_to_float64_than_tensor_operations_are(channels, groups, sides, mean):
    picture = numbers(2, channels, *sides, mean=mean).half().contiguous(memory_format=LAST)
    added = numbers(channels, seed=3).half()
    ours, theirs = errors(picture, group_norm(channels, groups).half(), added, silu=True)
    assert ours <= theirs + 1e-6
    assert ours < 0.01


@pytest.fixture
def in_parts(monkeypatch):
    """Pictures of any size are cut, into few parts."""
    monkeypatch.setattr(norms, "WHOLE", 1)
    monkeypatch.setattr(norms, "PARTS", 4)
    monkeypatch.setattr(norms, "AT_ONCE", 128)


@pytest.mark.parametrize("mean", [0.0, 40.0])
@pytest.mark.parametrize(("channels", "groups", "side"), [(32, 8, 8), (64, 16, 4)])
def test_the_parts_of_a_large_picture_make_the_norm_of_all(in_parts, channels, groups, side, mean):
    """A mean that wanders over the picture is what a sum of parts could miss."""
    picture = numbers(2, channels, side, side, mean=mean)
    picture += torch.linspace(-5, 5, side)[:, None]
    picture = picture.half().contiguous(memory_format=LAST)
    for added in (None, numbers(channels, seed=3).half()):
        ours, theirs = errors(picture, group_norm(channels, groups).half(), added, silu=added is None)
        assert ours <= theirs + 1e-6
        assert ours < 0.02


def test_in_fp32_a_norm_is_that_of_tensor_operations():
    picture, norm = numbers(2, 40, 6, 5), group_norm(40, 4)
    for silu in (False, True):
        ours, _ = errors(picture, norm, None, silu)
        assert ours < 1e-4


def test_rows_and_any_layout_are_taken():
    rows = numbers(2, 9, 24).transpose(1, 2)
    assert errors(rows, group_norm(24, 4), None, silu=False)[0] < 1e-4
    made = fused_norm(numbers(2, 24, 3, 4).to(DEVICE), group_norm(24, 4).to(DEVICE), None, silu=True)
    assert made.is_contiguous(memory_format=LAST)


def test_what_the_kernels_can_do_is_told():
    assert fits(32 * 32, 320, 32)
    assert fits(256 * 256, 128, 32)
    assert fits(64 * 64, 512, 32)
    assert not fits(256 * 256, 96, 32)
    assert not fits(250 * 250, 128, 32)


def test_a_sum_has_its_bias_and_is_rounded_once():
    one, other, bias = numbers(2, 24, 5, 7).half(), numbers(2, 24, 5, 7, seed=1).half(), numbers(24, seed=2)
    made = fused_add(one.to(DEVICE), other.contiguous(memory_format=LAST).to(DEVICE), bias.to(DEVICE))
    exact = one.float() + other.float() + bias[:, None, None]
    assert torch.equal(made.cpu(), exact.half())
    assert made.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("mean", [0.0, 40.0])
@pytest.mark.parametrize("shape", [(2, 5, 40), (3, 64), (1, 7, 320)])
def test_in_half_the_norm_of_a_sum_is_nearer_to_float64_than_tensor_operations_are(shape, mean):
    rows, more = (numbers(*shape, mean=mean, seed=seed).half() for seed in (0, 1))
    norm = nn.LayerNorm(shape[-1], eps=1e-5)
    norm.weight.data, norm.bias.data = numbers(shape[-1], seed=2), numbers(shape[-1], seed=3)
    norm = norm.requires_grad_(False).half()
    for added in (None, more):
        both = rows.double() if added is None else rows.double() + added.double()
        exact = nn.functional.layer_norm(both, shape[-1:], norm.weight.double(), norm.bias.double(), 1e-5)
        given = None if added is None else added.to(DEVICE)
        total, ours = fused_row_norm(rows.to(DEVICE), given, copy.deepcopy(norm).to(DEVICE))
        assert torch.equal(total.cpu(), both.half())
        theirs = norm.float()(both.half().float()).half()
        norm.half()
        apart = [(one.cpu().double() - exact).abs().max().item() for one in (ours, theirs)]
        assert apart[0] <= apart[1] + 1e-3
        assert apart[0] < 0.01


def test_rows_that_do_not_lie_together_are_taken():
    rows, norm = numbers(2, 24, 9).transpose(1, 2), nn.LayerNorm(24)
    total, made = fused_row_norm(rows.to(DEVICE), rows.to(DEVICE), norm.to(DEVICE))
    torch.testing.assert_close(total.cpu(), 2 * rows)
    torch.testing.assert_close(made.cpu(), norm.cpu()(2 * rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 48), (5, 1500), (1, 2 * norms.BLOCK), (700, 6)])
def test_gates_are_those_of_tensor_operations_and_rounded_once(shape):
    """Rows that end within a program, and some that take more than one."""
    both = (numbers(*shape) * 2).half()
    exact = eager_gate(both.double())
    made = fused_gate(both.to(DEVICE)).cpu()
    assert made.shape == exact.shape
    assert ((made.double() - exact).abs() / (1 + exact.abs())).max() < 1e-3
    theirs = eager_gate(both).double()
    assert (made.double() - exact).abs().max() <= (theirs - exact).abs().max()


def fused(network):
    network = fold(network.to(DEVICE, memory_format=LAST))
    replace(network)
    return network


def test_a_fused_vae_is_the_folded_one():
    vae = small_vae()
    expected = reconstruct(fold(vae), LAST)
    made = reconstruct(fused(vae), LAST)
    for ours, theirs in zip(made, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
def test_a_fused_unet_is_the_folded_one():
    unet = small_unet()
    torch.testing.assert_close(
        predict(fused(unet), LAST).cpu(), predict(fold(unet), LAST).cpu(), rtol=1e-5, atol=2e-5
    )


def test_every_norm_of_both_networks_is_fused_and_the_loaded_ones_stay():
    for network in (small_unet(), small_vae()):
        names = [(name, type(part)) for name, part in network.named_modules()]
        weights = {name: (id(weight), weight.clone()) for name, weight in network.named_parameters()}
        made = fold(network)
        replace(made)
        inside = {id(part.norm) for part in made.modules() if isinstance(part, FusedNorm)}
        assert {id(part) for part in made.modules() if isinstance(part, nn.GroupNorm)} == inside
        assert any(isinstance(part, FusedResnet) for part in made.modules())
        assert not any(isinstance(part, BasicTransformerBlock) for part in made.modules())
        assert any(isinstance(part, FusedBlock) for part in made.modules()) == hasattr(made, "conv_in")
        assert [(name, type(part)) for name, part in network.named_modules()] == names
        for name, weight in network.named_parameters():
            assert id(weight) == weights[name][0]
            assert torch.equal(weight, weights[name][1])


def test_on_a_cpu_nothing_is_fused():
    network = fold(small_vae().half())
    fuse(network)
    assert not any(isinstance(part, FusedNorm) for part in network.modules())


def test_a_convolution_without_its_bias_shares_its_weight():
    block = next(part for part in fused(small_vae()).modules() if isinstance(part, FusedResnet))
    assert block.conv1.bias is None
    assert not {"native_group_norm", "silu"} & set(
        operators(lambda: block(numbers(1, block.norm1.norm.num_channels, 4, 4).to(DEVICE)))
    )
