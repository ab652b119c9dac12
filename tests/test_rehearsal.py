"""What an engine measures as it warms up, on a clock that the work itself moves."""

import pytest
import torch
from clocks import FakeClock
from handmade import passed_through

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.engine import rehearsal
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.image_steps import ImageSteps
from musetalk_cli.engine.rehearsal import Rehearsal
from musetalk_cli.engine.repair import Repair
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.generator import Generator

ROWS = 250


@pytest.fixture(scope="module")
def avatar():
    return synthetic_avatar(96, 64, 32, 5)


class Timed(Generator):
    """Networks that take `each` seconds of the clock a row, and `late` more in every other batch."""

    def __init__(self, bundle, clock, each, late=0.0):
        super().__init__(bundle)
        self.clock, self.each, self.late = clock, each, late
        self.known = []

    def unet(self, tokens, latents):
        self.known.append(latents)
        self.clock.time += len(tokens) * self.each + self.late * (len(self.known) % 2)
        return super().unet(tokens, latents)


class Stage:
    """A rehearsal on the CPU; windows take `hop` seconds each."""

    def __init__(self, bundle, avatar, sizes, *, each=0.01, late=0.0, hop=0.02):
        self.clock, self.asked, self.hop = FakeClock(), [], hop
        stats = StageStats(self.clock)
        self.generator = Timed(bundle, self.clock, each, late)
        faces = FaceMaker(self.generator, stats)
        faces.take_sizes(sizes)
        images = ImageSteps(CpuPath(), torch.device("cpu"), torch.float32, None, stats)
        images.hold(avatar)
        repair = Repair(bundle, self.generator)
        self.rehearsal = Rehearsal(bundle, self.encode, faces, images, repair, self.clock)
        self.avatar, self.sizes = avatar, sizes

    def encode(self, requests):
        self.asked += requests
        self.clock.time += self.hop * len(requests)

    def measure(self, **kind):
        return self.rehearsal.measure(self.avatar, self.sizes, ROWS, 45, **kind, graphs=False)


def test_the_first_and_the_last_size_are_measured_on_a_cpu(tiny_bundle, avatar):
    stage = Stage(tiny_bundle, avatar, (1, 2, 4))
    costs = stage.measure(live=False)
    assert costs.hop == pytest.approx(0.02)
    assert costs.batches == {1: pytest.approx(0.01), 4: pytest.approx(0.04)}
    assert {len(latents) for latents in stage.generator.known} == {1, 4}
    assert {(len(request.samples), request.length) for request in stage.asked} == {(16_000, ROWS)}


def test_one_size_is_measured_once(tiny_bundle, avatar):
    stage = Stage(tiny_bundle, avatar, (2,))
    assert stage.measure(live=False).batches == {2: pytest.approx(0.02)}
    assert len(stage.generator.known) == 2, "once before, and once timed"


def test_before_a_live_stream_the_shortest_of_several_trials_counts(tiny_bundle, avatar, monkeypatch):
    monkeypatch.setattr(rehearsal, "TRIALS", 5)
    stage = Stage(tiny_bundle, avatar, (1,), late=0.1)
    assert stage.measure(live=True).batches == {1: pytest.approx(0.01)}
    assert len(stage.generator.known) == 1 + 5


def test_slow_work_is_not_tried_for_longer_than_a_second(tiny_bundle, avatar, monkeypatch):
    monkeypatch.setattr(rehearsal, "TRIALS", 5)
    stage = Stage(tiny_bundle, avatar, (1,), each=0.6)
    stage.measure(live=True)
    assert len(stage.generator.known) == 1 + 2


def test_a_clip_that_begins_without_a_face_is_warmed_up_with_its_first_one(tiny_bundle, avatar):
    stage = Stage(tiny_bundle, passed_through(avatar, {0, 1, 4}), (1, 4))
    stage.measure(live=False)
    assert all(torch.equal(row, avatar.latents[2]) for rows in stage.generator.known for row in rows)
