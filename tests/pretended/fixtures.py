"""The pretended GPU as fixtures, for the folders of tests that use it."""

import os

import pytest
import torch

from .cuda import pretended_gpu
from .guard import why_not
from .kernels import with_triton


@pytest.fixture(scope="session")
def guard_folder(tmp_path_factory):
    """Where the device guard is built: one folder for all test processes of a run."""
    if reason := why_not():
        pytest.skip(reason)
    here = tmp_path_factory.getbasetemp()
    return here.parent if "PYTEST_XDIST_WORKER" in os.environ else here


@pytest.fixture
def gpu(guard_folder):
    """A pretended GPU."""
    with pretended_gpu(guard_folder) as device:
        yield device


@pytest.fixture
def triton(gpu):
    """A pretended GPU that has Triton."""
    with with_triton():
        yield gpu


@pytest.fixture
def real_or_pretended(request):
    """The GPU there is; where there is none, a pretended one."""
    if not torch.cuda.is_available():
        request.getfixturevalue("gpu")
