"""The GPU of these tests: a real one where there is one, else one that is pretended."""

from pathlib import Path

import pytest
import torch
from pretended.fixtures import gpu, guard_folder, real_or_pretended  # noqa: F401 - fixtures

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _some_gpu(real_or_pretended):  # noqa: F811 - the fixture
    """Every test of this folder has one."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """On the pretended GPU they take minutes; `tests/pretended` is what tries it each time."""
    if not torch.cuda.is_available():
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.slow)


def pytest_report_header():
    """What a run of this folder tells about its device."""
    pretended = "a pretended GPU, since there is no other"
    return f"tests/gpu: on {torch.cuda.get_device_name() if torch.cuda.is_available() else pretended}"
