"""What the tests on the pretended GPU share."""

import functools
import weakref
from pathlib import Path

import pytest
import torch

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.engine.graphs import Recorder
from musetalk_cli.nets.bundle import load_bundle
from pretended.cuda import pretended_gpu
from pretended.fixtures import gpu, guard_folder, triton  # noqa: F401 - fixtures
from pretended.speaking import make_engine, speak


@pytest.fixture(scope="session")
def avatars():
    """Two that differ in size of frame and of face; the boxes of each differ too."""
    return synthetic_avatar(96, 64, 32, 4), synthetic_avatar(120, 90, 48, 3)


@pytest.fixture(scope="session")
def on_cpu(models):
    """The tiny networks on the CPU, in fp32."""
    return load_bundle(str(models), Path(), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def expected(on_cpu, avatars):
    """What all avatars say on the CPU, in fp32."""
    return speak(make_engine(on_cpu), *avatars)


@pytest.fixture(scope="session")
def on_gpu(models, guard_folder):  # noqa: F811 - the fixture
    """Gives the tiny networks on any pretended GPU."""

    @functools.cache
    def load(dtype=torch.float32):
        with pretended_gpu(guard_folder):
            return load_bundle(str(models), Path(), torch.device("cuda"), dtype)

    return load


@pytest.fixture
def captured(monkeypatch):
    """Weak references to the graphs that a test captures."""
    made, capture = [], Recorder.capture

    def noted(recorder, work):
        graph, given = capture(recorder, work)
        made.append(weakref.ref(graph))
        return graph, given

    monkeypatch.setattr(Recorder, "capture", noted)
    return made
