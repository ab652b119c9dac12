"""The image steps in one launch on the pretended GPU: chosen where they work, and given up with one line."""

from dataclasses import replace

import pytest
import torch

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import GpuPath
from musetalk_cli.engine.fused import FusedPath, image_path
from pretended.cuda import pretended_gpu
from pretended.device import Pace
from pretended.kernels import Kernel, interpreted, with_triton
from pretended.speaking import JOB, apart, check_waits, make_engine, speak

CUDA = torch.device("cuda")
GIVEN_UP = "The image steps are not one launch but many on this GPU: "


@pytest.fixture(scope="module")
def expected(on_cpu, avatars):
    """What all avatars say on the CPU, in fp32."""
    return speak(make_engine(on_cpu), *avatars, seconds=0.2)


@pytest.mark.parametrize("pace", [Pace.LATE, pytest.param(Pace.EARLY, marks=pytest.mark.slow)])
def test_sessions_together_are_the_cpus_and_only_patches_are_waited_for(
    guard_folder, on_gpu, avatars, expected, pace, caplog
):
    with pretended_gpu(guard_folder, pace), with_triton():
        spoken = speak(make_engine(on_gpu()), *avatars, seconds=0.2)
    assert apart(spoken, expected) <= 1
    assert GIVEN_UP not in caplog.text
    launches = spoken.engine.stats.launches
    # the description's way up, and the kernel; then the patches' way down
    assert set(launches["compose"]) == {2}
    assert set(launches["download"]) == {1}
    assert not {"resize", "blend"} & set(launches)
    if pace is Pace.LATE:
        check_waits(spoken)


def test_sharpening_is_part_of_the_launch(triton, on_gpu, on_cpu, avatars):
    job = replace(JOB, sharpen=Sharpen())
    spoken = speak(make_engine(on_gpu(), job), avatars[0], seconds=0.1)
    assert set(spoken.engine.stats.launches["compose"]) == {2}
    theirs = speak(make_engine(on_cpu, job), avatars[0], seconds=0.1)
    assert apart(spoken, theirs, share=0.999) <= 3


def test_what_is_compiled_is_compiled_before_the_first_stream(triton, on_gpu, avatars):
    """Also for sizes of batches and faces that come later, and for a face that is made again."""
    engine = make_engine(on_gpu(torch.float16), replace(JOB, batch_sizes=(1, 2)))
    engine.warm_up(avatars[1])
    before = set(triton.compiled)
    assert before
    latents = avatars[0].latents.clone()
    latents[1] = 1e5
    speak(engine, replace(avatars[0], latents=latents), seconds=0.1)
    assert engine.repair.remade > 0
    assert triton.compiled == before


def test_without_triton_it_is_said_once_and_tensor_operations_do_it(
    gpu, on_gpu, avatars, caplog, monkeypatch
):
    def missing():
        raise ModuleNotFoundError("No module named 'triton'")

    monkeypatch.setattr("musetalk_cli.ops.triton_ops.kernels", missing)
    spoken = speak(make_engine(on_gpu()), avatars[0], seconds=0.1)
    said = [record.getMessage() for record in caplog.records if GIVEN_UP in record.getMessage()]
    assert said == [f"{GIVEN_UP}No module named 'triton'"]
    assert (spoken.engine.images.path, spoken.engine.images.fallbacks) == ("gpu", 0)
    assert {"resize", "blend", "download"} <= set(spoken.engine.stats.launches)


@pytest.mark.parametrize("number", [0, 5])
def test_a_kernel_that_makes_other_pixels_is_given_up(triton, caplog, monkeypatch, number):
    """As one that a compiler got wrong: a weight, or where the face's rows are found."""
    right = interpreted("musetalk_cli.ops.compose_kernels")

    class Wrong(Kernel):
        def __getitem__(self, grid):
            def launch(*arguments, **options):
                broken = [*arguments]
                broken[number] = arguments[number] + 1 if number else arguments[number].flip(0)
                right.compose[grid](*broken, **options)

            return launch

    right.compose, wrong = right.compose, Wrong("compose", None)
    monkeypatch.setattr("musetalk_cli.ops.triton_ops.kernels", lambda: type("Module", (), {"compose": wrong}))
    assert isinstance(image_path(CUDA, 3, Sharpen()), GpuPath)
    assert f"{GIVEN_UP}" in caplog.text
    assert "are not those of the CPU" in caplog.text


def test_what_is_too_wide_for_one_launch_is_done_in_many(triton, caplog):
    assert isinstance(image_path(CUDA, 3, Sharpen(1.0, 4.0, 5.0)), GpuPath)
    assert f"{GIVEN_UP}A blur of 33 rows and columns is too wide" in caplog.text


def test_tensors_of_the_host_are_refused_as_triton_refuses_them(triton):
    path = FusedPath(CUDA)
    with pytest.raises(ValueError, match="cannot be accessed from Triton"):
        path.launch(torch.zeros(0, 256, 256, 3), torch.zeros(0), 1)
