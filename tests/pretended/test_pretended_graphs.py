"""The networks as CUDA graphs: the same frames in two launches, and memory that nobody reads too late."""

import gc
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.graphs import GraphedBatch, Recorder
from musetalk_cli.engine.image_steps import ImageSteps
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.generator import Generator
from pretended.cuda import pretended_gpu
from pretended.device import Pace
from pretended.graphs import POISON
from pretended.speaking import FRAMES, JOB, SIZES, apart, check_waits, make_engine, speak, warm_engine
from pretended.tensors import OnDevice

CUDA = torch.device("cuda")


# -- what a graph is on the pretended GPU ------------------------------------------------------------------


def doubled(x):
    """Some work with a view, an operator in place and memory that is made empty."""
    made = torch.empty_like(x)
    made[:2].copy_(x[:2])
    made[2:] = x[2:]
    return made.add_(x) + 1


def test_a_graph_runs_nothing_until_it_is_replayed_and_then_reads_its_inputs_anew(gpu):
    x = torch.arange(4.0, device=CUDA)
    recorder = Recorder(CUDA)
    graph, made = recorder.capture(lambda: doubled(x))
    assert set(made.cpu().tolist()) == {POISON}
    for _ in range(2):
        graph.replay()
        assert made.cpu().tolist() == [1, 3, 5, 7]
    x.copy_(x + 10)
    gpu.launches.clear()
    graph.replay()
    assert gpu.launches == {"graph": 1}
    assert made.cpu().tolist() == [21, 23, 25, 27]


def test_graphs_that_share_memory_leave_nothing_of_each_other(gpu):
    x = torch.arange(4.0, device=CUDA)
    recorder = Recorder(CUDA)
    (one, first), (other, second) = (recorder.capture(lambda: doubled(x)) for _ in range(2))
    one.replay()
    other.replay()
    assert set(first.cpu().tolist()) == {POISON}
    assert second.cpu().tolist() == [1, 3, 5, 7]


def test_no_garbage_is_looked_for_while_a_graph_is_captured(gpu):
    x = torch.arange(4.0, device=CUDA)
    captured = []

    def wasteful():
        for _ in range(2 * gc.get_threshold()[0]):
            cycle = []
            cycle.append(cycle)
        return doubled(x)

    def note(phase, info):
        captured.append(gpu.tape is not None)

    gc.callbacks.append(note)
    try:
        Recorder(CUDA).capture(wasteful)
    finally:
        gc.callbacks.remove(note)
    assert captured, "some is looked for before"
    assert not any(captured)
    assert gc.isenabled()


def test_what_a_graph_reads_of_another_is_there(gpu):
    x = torch.arange(4.0, device=CUDA)
    recorder = Recorder(CUDA)
    first, made = recorder.capture(lambda: doubled(x))
    second, last = recorder.capture(lambda: made * 2)
    first.replay()
    second.replay()
    assert last.cpu().tolist() == [2, 6, 10, 14]


def test_a_wait_spoils_a_capture_and_nothing_after_it(gpu):
    x = torch.arange(4.0, device=CUDA)
    recorder = Recorder(CUDA)
    calls = iter([False, True])
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        recorder.capture(lambda: x[0].item() if next(calls) else None)
    assert OnMainLine()
    pool = recorder._pool  # noqa: SLF001 - what PyTorch's allocator was told
    assert (pool.recording, pool.users) == (False, 0)
    graph, made = recorder.capture(lambda: doubled(x))
    graph.replay()
    assert made.cpu().tolist() == [1, 3, 5, 7]
    assert (pool.recording, pool.users) == (False, 1)


def test_a_mistake_in_a_capture_is_told_as_it_is_and_leaves_nothing_open(gpu):
    recorder = Recorder(CUDA)
    calls = iter([False, True])

    def fails():
        if next(calls):
            raise KeyError("unet")

    with pytest.raises(KeyError, match="unet"):
        recorder.capture(fails)
    assert OnMainLine()
    assert not recorder._pool.recording  # noqa: SLF001 - what PyTorch's allocator was told


def OnMainLine():  # noqa: N802 - reads as what it is
    """True where this thread gives its work to the main stream."""
    return torch.cuda.current_stream().line is None


# -- the engine --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "pace", "levels"),
    [
        (torch.float32, Pace.LATE, 1),
        pytest.param(torch.float16, Pace.EARLY, 2, marks=pytest.mark.slow),
    ],
)
def test_frames_of_graphs_are_the_cpus_and_nothing_else_is_waited_for(
    guard_folder, on_gpu, avatars, expected, dtype, pace, levels
):
    with pretended_gpu(guard_folder, pace):
        engine = warm_engine(on_gpu, avatars, dtype)
        assert engine.faces.graphed == SIZES
        spoken = speak(engine, *avatars)
    assert [len(frames) for frames in spoken.frames] == [FRAMES, FRAMES]
    assert apart(spoken, expected) <= levels
    if pace is Pace.LATE:
        check_waits(spoken)
    # tokens and latents to where the graph reads them, and the graph
    assert set(engine.stats.launches["unet"]) == {3}
    assert set(engine.stats.launches["vae"]) == {1}


@pytest.mark.slow
def test_graphs_give_exactly_what_single_launches_give(gpu, on_gpu, avatars):
    graphed, eager = (speak(warm_engine(on_gpu, avatars, graphs=graphs), *avatars, seconds=0.3)
                      for graphs in (True, False))  # fmt: skip
    assert eager.engine.faces.graphed == ()
    assert min(eager.engine.stats.launches["unet"]) > 3
    assert apart(graphed, eager) == 0


def test_without_a_warm_up_there_is_no_graph(gpu, on_gpu, avatars):
    engine = make_engine(on_gpu())
    speak(engine, avatars[0], seconds=0.1)
    assert engine.faces.graphed == ()


def test_a_cpu_has_no_graphs(on_cpu, avatars, monkeypatch):
    monkeypatch.setattr("musetalk_cli.engine.rehearsal.Recorder", None)
    engine = make_engine(on_cpu)
    engine.warm_up(avatars[0])
    assert engine.faces.graphed == ()


class Unwilling(Generator):
    """Networks that ask for a number on the host where a batch has so many frames."""

    frames = 4

    def draw(self, latents):
        if len(latents) == self.frames:
            latents.sum().item()
        return super().draw(latents)


@pytest.mark.slow
@pytest.mark.parametrize(("frames", "left"), [(4, ()), pytest.param(1, (4,), marks=pytest.mark.slow)])
def test_networks_that_cannot_be_captured_are_launched_singly_and_a_line_says_so(
    gpu, on_gpu, avatars, expected, monkeypatch, caplog, frames, left
):
    monkeypatch.setattr(Unwilling, "frames", frames)
    job = replace(JOB, batch_sizes=SIZES)
    engine = make_engine(on_gpu(), job, generator=Unwilling(on_gpu()))
    engine.warm_up(avatars[0])
    assert engine.faces.graphed == left
    assert apart(speak(engine, *avatars), expected) <= 1
    said = [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]
    assert said == [
        f"No CUDA graph for batches of {frames} frames, whose work is launched singly: CUDA error: operation "
        "not permitted when stream is capturing"
    ]


def test_a_session_that_opens_while_graphs_are_captured_spoils_none(gpu, on_gpu, avatars):
    """An upload on a stream of its own, with its waits, in another thread."""

    class Meanwhile(Generator):
        def unet(self, *arguments):
            opener = threading.Thread(target=engine.images.hold, args=(avatars[1],))
            opener.start()
            opener.join()
            return super().unet(*arguments)

    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=SIZES), generator=Meanwhile(on_gpu()))
    engine.warm_up(avatars[0])
    assert engine.faces.graphed == SIZES


def test_a_halved_batch_frees_the_graphs_of_larger_ones(gpu, on_gpu, avatars):
    engine = warm_engine(on_gpu, avatars)
    engine.faces.halve(torch.OutOfMemoryError("CUDA out of memory."))
    assert engine.batch_sizes == (1, 2)
    assert engine.faces.graphed == (1,)


# -- without a warm-up -------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch):
    """A graph is captured after two batches of its size."""
    monkeypatch.setattr("musetalk_cli.engine.faces.CAPTURED_AFTER", 2)


def test_where_nothing_was_warmed_up_a_graph_is_captured_once_it_pays(gpu, on_gpu, avatars, expected, soon):
    """With batches on their way, whose frames stay what they are."""
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=SIZES))
    assert engine.faces.graphed == ()
    spoken = speak(engine, *avatars)
    assert apart(spoken, expected) <= 1
    assert engine.faces.graphed == (4,)
    launched = engine.stats.launches["unet"]
    assert min(launched[:2]) > 3
    # a capture does all of it once before
    assert set(launched[2:]) == {3}
    assert [wait.kind for wait in spoken.waits].count("the device") == 2, "for UNet and VAE, once"


@pytest.mark.slow
def test_frames_are_the_same_before_and_after_such_a_capture(gpu, on_gpu, avatars, soon):
    late, single = (
        speak(make_engine(on_gpu(), replace(JOB, batch_sizes=(4,), graphs=graphs)), avatars[0])
        for graphs in (True, False)
    )
    assert (late.engine.faces.graphed, single.engine.faces.graphed) == ((4,), ())
    assert apart(late, single) == 0


class NeverCaptured(Generator):
    """Networks that ask for a number on the host while they are captured."""

    def draw(self, latents):
        if OnDevice.gpu.tape is not None:
            latents.sum().item()
        return super().draw(latents)


def test_after_a_warm_up_nothing_is_captured_in_the_stream(gpu, on_gpu, avatars, soon):
    """Also where the warm-up could capture nothing: a stream would wait."""
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=(4,)), generator=NeverCaptured(on_gpu()))
    engine.warm_up(avatars[0])
    spoken = speak(engine, avatars[0])
    assert engine.filling.batches > 2
    assert engine.faces.graphed == ()
    check_waits(spoken)


@pytest.mark.slow
def test_a_late_capture_that_fails_is_said_once_and_not_tried_again(
    gpu, on_gpu, avatars, expected, soon, caplog
):
    engine = make_engine(on_gpu(), replace(JOB, batch_sizes=(4,)), generator=NeverCaptured(on_gpu()))
    assert apart(speak(engine, *avatars), expected) <= 1
    assert engine.faces.graphed == ()
    assert caplog.text.count("No CUDA graph for batches of 4 frames") == 1


# -- planted faults ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_faces_read_after_the_next_replay_are_caught(gpu, on_gpu, avatars, expected, monkeypatch):
    """By a closure that keeps them until its batch lands."""
    run = ImageSteps.run
    engine = warm_engine(on_gpu, avatars)

    def late(*arguments):
        def fetch():
            return run(*arguments)()

        return fetch

    monkeypatch.setattr(ImageSteps, "run", late)
    assert apart(speak(engine, *avatars), expected) > 20


@pytest.mark.slow
def test_a_replay_before_its_inputs_are_copied_is_caught(gpu, on_gpu, avatars, expected, monkeypatch):
    def early(self, tokens, latents):
        self._unet.replay()
        torch.stack(list(tokens), out=self._tokens)
        torch.stack(list(latents), out=self._latents)

    engine = warm_engine(on_gpu, avatars)
    monkeypatch.setattr(GraphedBatch, "unet", early)
    assert apart(speak(engine, *avatars), expected) > 20


def test_faces_of_a_graph_do_not_outlive_the_next_batch(gpu, on_gpu, avatars):
    """The rule itself: who keeps them longer reads poison."""
    bundle = on_gpu()
    faces = FaceMaker(Generator(bundle), StageStats())
    faces.take_sizes(SIZES)
    tokens = torch.zeros(10 * bundle.layers, bundle.token_width, device=CUDA)
    latents = torch.zeros(8, 32, 32, device=CUDA, dtype=bundle.dtype)
    faces.capture(Recorder(CUDA), tokens, latents, SIZES, lambda *_: None)
    first = faces.make([tokens], [latents]).pictures
    before = first.cpu().numpy().copy()
    assert (before != POISON).any()
    faces.make([tokens] * 3, [latents + 1] * 3)
    assert (first.cpu().numpy() == POISON).all()
    again = faces.make([tokens], [latents]).pictures
    assert np.array_equal(again.cpu().numpy(), before)
