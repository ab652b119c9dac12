"""Image steps on the CPU for some faces of a batch."""

from contextlib import nullcontext

import numpy as np
import torch
from clocks import FakeClock
from drawings import drawn

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.host_steps import HostSteps, joined
from musetalk_cli.measure.stages import StageStats

AVATAR = synthetic_avatar(160, 120, 64, 3)
FACES = drawn(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 256, 256, 3), np.uint8)), [1])


def test_they_are_those_of_the_cpus_path():
    targets, sharpen = CpuPath().place(AVATAR), Sharpen()
    stats = StageStats(FakeClock())
    steps = HostSteps(torch.device("cpu"), sharpen, stats, slots=2)
    made = steps.compose(FACES, targets)()
    expected = CpuPath().compose(Drawn(FACES), targets, sharpen, lambda _: nullcontext())()
    assert all(map(np.array_equal, made, expected))
    assert len(made) == len(expected) == 4
    assert {"resize", "sharpen", "blend"} <= set(stats.summary(["resize", "sharpen", "blend"]))


def part(*names):
    """What waits for some pictures, and a mark that tells of each."""
    return lambda: [*names, np.array([name.isupper() for name in names], np.uint8)]


def test_parts_of_a_batch_are_joined_in_the_order_of_its_faces():
    *patches, marks = joined([([1, 3], part("b", "D")), ([0, 2], part("A", "c"))])()
    assert patches == ["A", "b", "c", "D"]
    assert (marks.tolist(), marks.dtype) == ([1, 0, 0, 1], np.uint8)


def test_nothing_is_waited_for_before_all_is():
    asked = []

    def late():
        asked.append(True)
        return part("A")()

    fetch = joined([([0], late)])
    assert not asked
    fetch()
    assert asked
