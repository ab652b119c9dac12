"""The audio encoder on CUDA: how its sound comes up, and its forward in a CUDA graph."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from musetalk_cli.engine.graphs import Recorder
from musetalk_cli.nets.audio_encoder import WINDOWS_ON_CUDA, AudioEncoder, EncodeRequest
from musetalk_cli.nets.graphed_encoder import GraphedForward
from musetalk_cli.nets.staging import BUFFERS, Staging
from pretended.cuda import pretended_gpu
from pretended.device import Pace
from pretended.speaking import JOB, apart, check_waits, make_engine, speak

CUDA = torch.device("cuda")
LENGTH = 150


def arrays(number):
    """Two of different kinds, full of a number."""
    return np.full((2, 5), number, np.float32), np.full(3, number, np.int64)


def check(arrived, number):
    for array, tensor in zip(arrays(number), arrived, strict=True):
        assert (tensor.device.type, tensor.dtype) == ("cuda", torch.from_numpy(array).dtype)
        assert np.array_equal(tensor.cpu(), array)


@pytest.fixture
def pinned(monkeypatch):
    """Sizes of the pinned buffers that are made."""
    made, empty = [], torch.empty

    def counted(*size, **kwargs):
        made.extend(size[:1] if kwargs.get("pin_memory") else ())
        return empty(*size, **kwargs)

    monkeypatch.setattr(torch, "empty", counted)
    return made


def test_one_buffer_is_enough_for_a_device_that_keeps_up(guard_folder, pinned):
    with pretended_gpu(guard_folder, Pace.EARLY) as gpu:
        staging = Staging(CUDA)
        arrived = [staging(*arrays(number)) for number in range(20)]
        assert (gpu.waits, gpu.launches["copy_"]) == ([], 20)
        for number, tensors in enumerate(arrived):
            check(tensors, number)
    assert pinned == [80]


def test_a_device_that_is_behind_is_waited_for_late_and_for_one_copy(guard_folder, pinned):
    """That no buffer changes before its copy has passed, the pretended GPU sees to."""
    with pretended_gpu(guard_folder, Pace.LATE) as gpu:
        staging = Staging(CUDA)
        arrived = [staging(*arrays(number)) for number in range(BUFFERS)]
        assert gpu.waits == []
        arrived += [staging(*arrays(number)) for number in range(BUFFERS, 10)]
        assert [wait.passed for wait in gpu.waits] == [("up",)] * (10 - BUFFERS)
        for number, tensors in enumerate(arrived):
            check(tensors, number)
    assert pinned == [80] * BUFFERS


class Seen:
    """Keeps what was launched: names and shapes."""

    def __init__(self):
        self.operators = []

    def __call__(self, name, read, written):
        self.operators.append((name, [tuple(tensor.shape) for tensor in (*read, *written)]))


def requests(seed, count):
    random = np.random.default_rng(seed)
    starts = random.integers(0, LENGTH - 20, count)
    sounds = [random.standard_normal(random.integers(0, 48_000)).astype(np.float32) for _ in starts]
    return [EncodeRequest(one, range(at, at + 20), LENGTH) for one, at in zip(sounds, starts, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_windows_of_any_sound_wait_for_nothing_and_launch_the_same(guard_folder, on_gpu, on_cpu, dtype):
    """As a CUDA graph needs it, which launches what it was captured with."""
    with pretended_gpu(guard_folder, Pace.EARLY) as gpu:
        encode = AudioEncoder(on_gpu(dtype))
        launched, found = [], []
        gpu.forbids_waits = True
        for seed in range(3):
            gpu.observer = Seen()
            found.append(encode(requests(seed, 3)))
            launched.append(gpu.observer.operators)
        gpu.observer, gpu.forbids_waits = None, False
        found = [[rows.cpu() for rows in some] for some in found]
    assert launched[0] == launched[1] == launched[2]
    assert [name for name, _ in launched[0]].count("copy_") == 1
    reference = AudioEncoder(on_cpu)
    for seed, some in enumerate(found):
        for ours, theirs in zip(some, reference(requests(seed, 3)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2 if dtype == torch.float16 else 1e-4)


# -- its forward in a CUDA graph ---------------------------------------------------------------------------


def graphed(bundle, *numbers, rows=25):
    """An encoder with graphs for some numbers of windows."""
    encode = AudioEncoder(bundle)
    request = EncodeRequest(np.zeros(0, np.float32), range(rows), LENGTH)
    recorder = Recorder(CUDA)
    for windows in numbers:
        encode.capture(recorder.capture, request, windows)
    return encode


def check_rows(found, expected):
    for some, others in zip(found, expected, strict=True):
        for ours, theirs in zip(some, others, strict=True):
            torch.testing.assert_close(ours.cpu(), theirs.cpu(), rtol=1e-4, atol=1e-4)


def test_a_graph_gives_the_rows_of_single_launches_in_three(gpu, on_gpu):
    """Also for fewer rows than it was captured for, at the end of a window, and with others in between."""
    encode, single = graphed(on_gpu(), 1, 3), AudioEncoder(on_gpu())
    assert encode.graphed == ((1, LENGTH), (3, LENGTH))
    asked = [requests(0, 3), requests(1, 1), requests(2, 3)]
    last = EncodeRequest(np.ones(8000, np.float32), range(LENGTH - 2, LENGTH), LENGTH)
    asked.append([last, *requests(3, 2)])
    gpu.launches.clear()
    found = [encode(some) for some in asked]
    assert gpu.launches == {"copy_": len(asked), "graph": len(asked), "clone": len(asked)}
    check_rows(found, [single(some) for some in asked])


@pytest.mark.parametrize(("count", "needed"), [(2, 20), (3, 30)])
def test_what_no_graph_was_captured_for_is_launched_singly(gpu, on_gpu, count, needed):
    """Another number of windows, or more rows."""
    encode, single = graphed(on_gpu(), 3), AudioEncoder(on_gpu())
    asked = [EncodeRequest(one.samples, range(needed), LENGTH) for one in requests(0, count)]
    gpu.launches.clear()
    found = encode(asked)
    assert gpu.launches["graph"] == 0
    check_rows([found], [single(asked)])


def test_rows_kept_where_the_graph_left_them_are_caught(gpu, on_gpu, monkeypatch):
    """A planted fault: the next replay overwrites them."""

    def kept(self, waves, rows):
        self._staging(waves, rows, target=self._inputs)
        self._graph.replay()
        return self._found

    monkeypatch.setattr(GraphedForward, "__call__", kept)
    encode, single = graphed(on_gpu(), 1), AudioEncoder(on_gpu())
    found = encode(requests(0, 1))
    check_rows([found], [single(requests(0, 1))])
    encode(requests(1, 1))
    with pytest.raises(AssertionError, match="not close"):
        check_rows([found], [single(requests(0, 1))])


def test_sound_that_comes_after_the_replay_is_caught(gpu, on_gpu, monkeypatch):
    def early(self, waves, rows):
        self._graph.replay()
        self._staging(waves, rows, target=self._inputs)
        return self._found.clone()

    monkeypatch.setattr(GraphedForward, "__call__", early)
    encode, single = graphed(on_gpu(), 1), AudioEncoder(on_gpu())
    with pytest.raises(AssertionError, match="not close"):
        check_rows([encode(requests(0, 1))], [single(requests(0, 1))])


SHORT = replace(JOB, batch_sizes=(2,), window=Fraction(3))


@pytest.fixture(scope="module")
def expected(on_cpu, avatars):
    return speak(make_engine(on_cpu, SHORT), *avatars, seconds=0.3)


def warm_engine(on_gpu, avatars, **job):
    engine = make_engine(on_gpu(), replace(SHORT, **job), live=True)
    engine.warm_up(avatars[0])
    engine.stats.launches.clear()
    return engine


def test_a_warm_up_captures_windows_and_a_stream_uses_them(gpu, on_gpu, avatars, expected):
    engine = warm_engine(on_gpu, avatars)
    spoken = speak(engine, *avatars, seconds=0.3)
    assert apart(spoken, expected) <= 1
    assert set(engine.stats.launches["features"]) == {3}
    check_waits(spoken)


def test_without_graphs_nothing_is_captured(gpu, on_gpu, avatars):
    engine = warm_engine(on_gpu, avatars, graphs=False)
    speak(engine, avatars[0], seconds=0.1)
    assert min(engine.stats.launches["features"]) > 3


@pytest.mark.slow
def test_an_encoder_that_cannot_be_captured_is_launched_singly_and_a_line_says_so(
    gpu, on_gpu, avatars, expected, monkeypatch, caplog
):
    forward = AudioEncoder.forward

    def asks(encoder, waves, rows):
        if len(waves) == WINDOWS_ON_CUDA:
            waves.sum().item()
        return forward(encoder, waves, rows)

    monkeypatch.setattr(AudioEncoder, "forward", asks)
    engine = warm_engine(on_gpu, avatars)
    assert apart(speak(engine, *avatars, seconds=0.3), expected) <= 1
    assert min(engine.stats.launches["features"]) > 3
    said = [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]
    assert said == [
        f"No CUDA graph for {WINDOWS_ON_CUDA} windows of sound together, whose work is launched singly: "
        "CUDA error: operation not permitted when stream is capturing"
    ]
