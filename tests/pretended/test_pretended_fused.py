"""The image steps in one launch on the pretended GPU: chosen where they work, and given up with one line."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import GpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.fused import FusedPath, image_path
from musetalk_cli.engine.graphs import Recorder
from musetalk_cli.ops.triton_ops import FIELDS, Compositor
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


def with_graphs(on_gpu, avatars, **job):
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=(1, 2), **job))
    engine.warm_up(avatars[0])
    engine.stats.launches.clear()
    return engine


def test_a_graph_holds_the_launch_for_faces_and_patches_of_any_size(
    triton, on_gpu, avatars, expected, caplog
):
    """Those of the second avatar are larger than all that the warm-up saw."""
    engine = with_graphs(on_gpu, avatars)
    triton.launches.clear()
    spoken = speak(engine, *avatars, seconds=0.2)
    assert apart(spoken, expected) <= 1
    # the description's way up, and the graph; then the patches' way down
    assert set(engine.stats.launches["compose"]) == {2}
    assert set(engine.stats.launches["download"]) == {1}
    windows = len(engine.stats.launches["features"])
    assert triton.launches["graph"] == 3 * engine.filling.batches + windows
    assert triton.launches["compose"] == 0
    assert "CUDA graph" not in caplog.text
    check_waits(spoken)


@pytest.mark.slow
def test_without_graphs_the_launch_is_a_launch(triton, on_gpu, avatars):
    engine = with_graphs(on_gpu, avatars, graphs=False)
    triton.launches.clear()
    speak(engine, avatars[0], seconds=0.1)
    assert (triton.launches["graph"], triton.launches["compose"]) == (0, engine.filling.batches)


@pytest.mark.slow
def test_a_face_that_is_no_number_is_made_again_also_where_a_graph_made_it(triton, on_gpu, on_cpu, avatars):
    latents = avatars[0].latents.clone()
    latents[1] = 1e5
    large = replace(avatars[0], latents=latents)
    engine = make_engine(on_gpu(torch.float16), replace(JOB, batch_sizes=(2,)))
    engine.warm_up(avatars[0])
    spoken = speak(engine, large, seconds=0.1)
    assert (engine.repair.lost, engine.repair.remade) == (0, 1)
    theirs = speak(make_engine(on_cpu), large, seconds=0.1)
    for ours, exact in zip(spoken.frames[0], theirs.frames[0], strict=True):
        assert np.abs(ours.astype(int) - exact).mean() < 1


@pytest.mark.slow
def test_a_description_that_comes_after_the_replay_is_caught(triton, on_gpu, avatars, expected, monkeypatch):
    """A planted fault: each batch goes where the one before it went."""
    describe, engine = FusedPath.describe, with_graphs(on_gpu, avatars)
    # so that all buffers are large enough, and what an old description names is still there
    assert apart(speak(engine, *avatars, seconds=0.2), expected) <= 1

    def late(path, targets, table):
        before = table.clone()
        shapes = describe(path, targets, table)
        described = table.clone()
        table.copy_(before)
        replays[id(table)] = lambda: table.copy_(described)
        return shapes

    replays, replay = {}, torch.cuda.CUDAGraph.replay

    def early(graph):
        replay(graph)
        for fill in replays.values():
            fill()
        replays.clear()

    monkeypatch.setattr(FusedPath, "describe", late)
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", early)
    assert apart(speak(engine, *avatars, seconds=0.2), expected) > 20


def test_a_graph_has_a_table_of_its_own(triton, avatars):
    """Else a batch that is launched singly would be described where the graph's is."""
    path = FusedPath(CUDA)
    spots = [spot for avatar in avatars for spot in path.place(avatar)]
    pictures = torch.rand(1, 3, 256, 256, device=CUDA)
    steps = path.capture(Recorder(CUDA), pictures)
    span = lambda _: nullcontext()  # noqa: E731
    right = path.compose(Drawn(pictures, steps), spots[:1], None, span)()[0]
    alone = path.compose(Drawn(pictures), spots[:1], None, span)()[0]
    assert np.array_equal(right, alone)
    assert path.table.data_ptr() != steps.table.data_ptr()


@pytest.mark.slow
def test_sharpening_is_part_of_the_launch(triton, on_gpu, on_cpu, avatars):
    job = replace(JOB, sharpen=Sharpen())
    spoken = speak(make_engine(on_gpu(), job), avatars[0], seconds=0.1)
    assert set(spoken.engine.stats.launches["compose"]) == {2}
    theirs = speak(make_engine(on_cpu, job), avatars[0], seconds=0.1)
    assert apart(spoken, theirs, share=0.999) <= 3


@pytest.mark.slow
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


@pytest.mark.parametrize("number", [0, 3])
def test_a_kernel_that_makes_other_pixels_is_given_up(triton, caplog, monkeypatch, number):
    """As one that a compiler got wrong: how much is sharpened, or where the face's rows are found."""
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
    with pytest.raises(ValueError, match="cannot be accessed from Triton"):
        Compositor(CUDA, None)(torch.zeros(1, FIELDS, dtype=torch.int64), torch.zeros(1, 3, 256, 256))


def test_room_for_larger_faces_is_made_where_they_are_placed_and_taken_by_the_next_batch(triton):
    path = FusedPath(CUDA)
    small, large = (path.place(synthetic_avatar(160, 120, face, 2)) for face in (32, 80))
    table = torch.zeros(4, FIELDS, dtype=torch.int64, device=CUDA)
    path.reserve(small, 4)
    path.describe(small, table)
    first = path.out
    path.reserve(large, 4)
    assert path.out is first, "a batch may be about to read it"
    path.describe(small, table)
    second = path.out
    assert len(second) > len(first)
    path.describe([max(large, key=lambda spot: spot.shape)] * 4, table)
    assert path.out is second
