"""The networks with fused norms on the pretended GPU."""

import pytest
import torch

from musetalk_cli.nets.folding import fold
from musetalk_cli.nets.fusion import FusedNorm, fuse
from musetalk_cli.nets.generator import Generator
from pretended.cuda import pretended_gpu
from pretended.full_size import full_size
from pretended.kernels import with_triton

NOT_FUSED = "Norms and sums of the networks are not fused on this GPU: "


def networks(bundle):
    """Both, as a generator has them."""
    made = [fold(bundle.unet), fold(bundle.vae)]
    fuse(*made)
    return made


def has_fused(network):
    return any(isinstance(part, FusedNorm) for part in network.modules())


def test_in_half_both_are_fused_where_the_kernels_work_and_in_fp32_neither(gpu, on_gpu, caplog):
    with with_triton(norms=True):
        assert all(map(has_fused, networks(on_gpu(torch.float16))))
        assert not any(map(has_fused, networks(on_gpu())))
    assert not caplog.records


def test_where_they_do_not_work_it_is_said_once(gpu, on_gpu, caplog, monkeypatch):
    def missing():
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr("musetalk_cli.ops.norms.kernels", missing)
    assert not any(map(has_fused, networks(on_gpu(torch.float16))))
    assert [record.getMessage() for record in caplog.records] == [f"{NOT_FUSED}No module named 'triton'"]


@pytest.mark.parametrize("name", ["fused_norm", "fused_add", "fused_gate"])
def test_a_kernel_that_computes_something_else_is_not_used(gpu, on_gpu, caplog, monkeypatch, name):
    def wrong(picture, *arguments, **options):
        right = original(picture, *arguments, **options)
        return right + 0.05 * right.abs().amax()

    with with_triton(norms=True):
        original = getattr(__import__("musetalk_cli.nets.fusion", fromlist=[name]), name)
        monkeypatch.setattr(f"musetalk_cli.nets.fusion.{name}", wrong)
        assert not any(map(has_fused, networks(on_gpu(torch.float16))))
    assert "too far from what a norm or a sum should be" in caplog.text


@pytest.mark.slow
def test_the_kernels_of_one_batch_size_are_those_of_all(guard_folder):
    """The networks of v1.5: nothing is compiled for a batch of another size."""
    with pretended_gpu(guard_folder, inside=torch.device("meta")) as gpu, with_triton(norms=True):
        bundle = full_size()
        generator, compiled = Generator(bundle), []
        for size in (1, 4, 13):
            tokens = torch.empty(size, 10 * bundle.layers, bundle.token_width, device="cuda")
            latents = torch.empty(size, 8, 32, 32, device="cuda", dtype=bundle.dtype)
            generator.draw(generator.unet(tokens, latents))
            compiled.append(set(gpu.compiled))
    kernels = {"norm_group", "measure", "norm_part", "add", "norm_row", "gate"}
    assert {kernel for kernel, *_ in compiled[0]} == kernels
    assert compiled[0] == compiled[1] == compiled[2]


@pytest.mark.slow
def test_fused_faces_are_the_cpus(guard_folder, on_gpu, on_cpu):
    numbers = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 10 * on_cpu.layers, on_cpu.token_width, generator=numbers)
    latents = torch.randn(1, 8, 32, 32, generator=numbers)
    exact = Generator(on_cpu)
    expected = exact.decode(exact.unet(tokens, latents))
    with pretended_gpu(guard_folder), with_triton(norms=True):
        generator = Generator(on_gpu(torch.float16))
        made = generator.decode(generator.unet(tokens.cuda(), latents.cuda())).cpu()
    assert (made.int() - expected.int()).abs().max() <= 2
