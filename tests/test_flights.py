"""Batches on their way where the device does everything at once: what lands when, and a batch in two."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from clocks import FakeClock
from encoders import deaf
from handmade import passed_through
from lives import speech, take_all

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.faces import FaceMaker
from musetalk_cli.engine.flights import Flights
from musetalk_cli.engine.hearing import Hearing
from musetalk_cli.engine.hops import HopGrid, HopPlanner
from musetalk_cli.engine.image_steps import ImageSteps
from musetalk_cli.engine.repair import Repair
from musetalk_cli.engine.session import Session
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.engine.windows import FeatureStream
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.nets.generator import Generator
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import StreamFormat

FPS = Fraction(25)


class Small(Generator):
    """Networks on a device that has memory for so many frames at once."""

    most = 100

    def unet(self, tokens, latents):
        if len(tokens) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().unet(tokens, latents)


class Made:
    """Flights on the CPU, and sessions whose requests a test takes as it likes."""

    def __init__(self, bundle, sizes=(4,)):
        self.bundle, self.generator, self.clock = bundle, Small(bundle), FakeClock(7.0)
        stats = StageStats(self.clock)
        self.faces = FaceMaker(self.generator, stats)
        self.faces.take_sizes(sizes)
        self.images = ImageSteps(CpuPath(), torch.device("cpu"), torch.float32, None, stats)
        self.flights = Flights(self.faces, self.images, Repair(bundle, self.generator), stats, None)

    def open(self, avatar, frames, kind=Session):
        """A session and its requests."""
        timeline = Timeline(FPS)
        planner = HopPlanner(timeline, None, HopGrid(Fraction(2), Fraction(2)), restarts=False)
        hearing = Hearing(timeline, FeatureStream(timeline, Fraction(0)), planner, 16_000, 1)
        stream = StreamFormat(avatar.meta.width, avatar.meta.height, FPS, 16_000, 1)
        session = kind(avatar, hearing, timeline, stream, SessionOptions())
        session.hear(speech(frames / 25)[:, None], 0.0)
        session.end_sound(0.0)
        session.understand(deaf(self.bundle)(session.advance(0.0)))
        self.images.hold(avatar)
        return session, [(session, session.next_request()) for _ in range(frames)]


@pytest.fixture
def made(tiny_bundle):
    return Made(tiny_bundle)


@pytest.fixture(scope="module")
def avatar():
    return synthetic_avatar(96, 64, 32, 12)


def indices(session):
    return [frame.request.index for frame in take_all(session)]


def test_a_batch_lands_when_it_is_waited_for_and_its_frames_are_of_that_moment(made, avatar):
    session, requests = made.open(avatar, 4)
    made.flights.start(requests)
    assert (made.flights.under_way, made.flights.land_passed(), session.untaken) == (1, 0, 0)
    made.clock.time = 9.0
    made.flights.land()
    frames = take_all(session)
    assert (made.flights.under_way, [frame.request.index for frame in frames]) == (0, [0, 1, 2, 3])
    assert {frame.composited for frame in frames} == {9.0}
    for frame in frames:
        assert not np.array_equal(frame.image, avatar.frames[frame.request.source])


def test_a_batch_without_a_face_has_passed_at_once_but_not_before_those_before_it(made, avatar):
    session, requests = made.open(passed_through(avatar, {4, 5}), 6)
    made.flights.start(requests[:4])
    made.flights.start(requests[4:])
    assert made.flights.land_passed() == 0
    made.flights.land()
    assert indices(session) == [0, 1, 2, 3]
    assert made.flights.land_passed() == 1
    assert indices(session) == [4, 5]


def test_each_frame_gets_its_own_patch_though_a_session_of_the_batch_fails(made, avatar):
    class Fails(Session):
        def assemble(self, request, patch, now):
            raise ValueError("broken")

    session, requests = made.open(avatar, 2)
    made.flights.start(requests)
    made.flights.land()
    expected = [frame.image for frame in take_all(session)]
    failing, others = made.open(avatar, 2, Fails)
    session, requests = made.open(avatar, 2)
    made.flights.start([others[0], requests[0], others[1], requests[1]])
    made.flights.land()
    assert str(failing.failure) == "broken"
    assert session.failure is None
    for frame, image in zip(take_all(session), expected, strict=True):
        assert np.abs(frame.image.astype(int) - image).max() <= 1


@pytest.mark.parametrize(
    ("without", "parts"),
    [((), (4, 3)), ((1, 2), (5, 2)), ((0, 6), (4, 3)), ((4, 5, 6), (2, 5)), ((0, 1, 2, 3, 5), (5, 2))],
)
def test_a_batch_without_memory_is_done_in_two_as_far_as_frames_are_made(made, avatar, without, parts):
    """One more is made in the first; what passes through goes with those before it, and order stays."""
    made.faces.take_sizes((7,))
    session, requests = made.open(passed_through(avatar, set(without)) if without else avatar, 7)
    made.generator.most = 6
    made.flights.start(requests)
    assert made.flights.under_way == 2
    landed = []
    for _ in parts:
        made.flights.land()
        landed.append(indices(session))
    assert tuple(map(len, landed)) == parts
    assert [index for part in landed for index in part] == list(range(7))
    assert (made.faces.sizes, made.faces.halvings) == ((4,), 1)


def test_what_is_on_its_way_is_landed_before_a_batch_is_done_in_two(made, avatar):
    session, requests = made.open(avatar, 10)
    made.flights.start(requests[:3])
    made.flights.start(requests[3:6])
    made.generator.most = 3
    made.flights.start(requests[6:])
    assert (made.flights.under_way, indices(session)) == (2, list(range(6)))
    made.flights.land()
    made.flights.land()
    assert indices(session) == list(range(6, 10))


def test_without_memory_for_half_of_it_a_batch_fails(made, avatar):
    _, requests = made.open(avatar, 4)
    made.generator.most = 1
    with pytest.raises(torch.OutOfMemoryError):
        made.flights.start(requests)
