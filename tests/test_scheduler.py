"""Start-time fair queueing, over real sessions whose frames are finished without networks."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from encoders import deaf

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.scheduler import BATCHES_FINISHED, FREE_FRAMES, Scheduler
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.measure.stages import StageStats

ROOM = 4
RATE = 16_000
JOB = JobConfig(image_ops="cpu", batch_sizes=(ROOM,))


@pytest.fixture(scope="module")
def avatar():
    return synthetic_avatar(160, 120, 64, 3)


class Device:
    """A scheduler and the sessions it decides between; finishes what it is told to make."""

    def __init__(self, bundle, avatar, sizes=(ROOM,), seconds=lambda _: 0.0, **first):
        self.hear = deaf(bundle)
        self.engine = Engine(bundle, JOB, StageStats(FakeClock(0.0)), encode=self.hear)
        self.avatar = avatar
        self.scheduler = Scheduler(sizes, seconds, **first)
        self.held_up = set()

    def open(self, fps=25, seconds=0.0, hop=Fraction(30), loud=0.1, **options):
        """A session; the frames of its first `seconds` wait already."""
        session = self.engine.open(
            self.avatar, Fraction(fps), hop, Fraction(0), RATE, 1, SessionOptions(**options)
        )
        self.scheduler.add(session)
        if seconds:
            self.say(session, seconds, loud)
            session.end_sound(0.0)
            self.encode(session)
            assert session.waiting == seconds * fps
        return session

    def say(self, session, seconds, loud=0.1):
        sound = np.random.default_rng(0).uniform(-loud, loud, (round(seconds * RATE), 1))
        session.hear(sound.astype(np.float32), 0.0)

    def advance(self, session):
        session.understand(self.hear(session.advance(0.0)))

    def encode(self, session):
        """All hops that are due."""
        while session.hop_ready() is not None:
            self.advance(session)

    def batch(self):
        """Serve one batch; whose frames these were."""
        self.scheduler.admit()
        batch = self.scheduler.take_batch()
        for session, request in batch:
            patch = self.avatar.patches[request.source].box
            session.assemble(request, np.zeros((patch.height, patch.width, 3), np.uint8), 0.0)
            if session not in self.held_up:
                session.take()
        return [session for session, _ in batch]

    def serve(self, batches):
        return [session for _ in range(batches) for session in self.batch()]


@pytest.fixture
def device(tiny_bundle, avatar):
    return Device(tiny_bundle, avatar)


@pytest.mark.parametrize("rates", [(25, 25), (10, 30), (25, 50, 5), (12, 24, 60, 1)])
def test_shares_follow_frame_rates(device, rates):
    sessions = [device.open(fps, 20) for fps in rates]
    seconds = 8
    served = Counter(device.serve(seconds * sum(rates) // ROOM))
    for session, fps in zip(sessions, rates, strict=True):
        assert served[session] == pytest.approx(seconds * fps, abs=2)


@pytest.mark.parametrize("rates", [(25, 25), (10, 30), (25, 50, 5)])
def test_the_smallest_start_tag_goes_first(device, rates):
    """The start tag of frame n is n / fps where all begin together."""
    sessions = {device.open(fps, 10): fps for fps in rates}
    made, tags = Counter(), []
    for session in device.serve(60):
        tags.append(Fraction(made[session], sessions[session]))
        made[session] += 1
    assert tags == sorted(tags)


def test_frames_without_model_work_do_not_wait_for_those_that_fill_a_batch(device):
    """A session in silence gets as many as a step may deliver, though another has work for many batches."""
    works = device.open(25, 8)
    rests = device.open(25, 1, loud=0.0, silence=SilenceLevel())
    served = Counter(device.serve(1))
    assert served == {works: ROOM, rests: (FREE_FRAMES - 1) * ROOM}


def test_equals_go_in_turn_in_the_order_they_came(device):
    sessions = [device.open(25, 4) for _ in range(3)]
    served = device.serve(9)
    assert served == sessions * 12


def test_who_comes_late_gets_its_share_from_then_on_and_nothing_for_the_past(device):
    first = device.open(25, 20)
    device.serve(50)
    late = device.open(25, 8)
    served = Counter(device.serve(20))
    assert served[first] == pytest.approx(40, abs=1)
    assert served[late] == pytest.approx(40, abs=1)


def test_who_was_idle_gets_its_share_from_then_on_and_nothing_for_the_past(device):
    first, talks = device.open(25, 20), device.open(25, hop=Fraction(1, 5))
    device.say(talks, 0.4)
    device.encode(talks)
    device.serve(40)
    assert talks.waiting == 0
    device.say(talks, 4)
    device.encode(talks)
    served = Counter(device.serve(15))
    assert served[first] == pytest.approx(30, abs=1)
    assert served[talks] == pytest.approx(30, abs=1)


def test_who_comes_while_an_older_tag_is_served_gets_nothing_for_the_past(device):
    behind, first = device.open(25, hop=Fraction(1, 5)), device.open(25, 20)
    device.say(behind, 0.6)
    # its hop is due and not encoded: it keeps its tag, while the other one is served
    device.serve(40)
    device.encode(behind)
    waited = behind.waiting
    assert device.serve(1) == [behind] * ROOM
    late = device.open(25, 8)
    served = Counter(device.serve(20))
    assert served[behind] == waited - ROOM > 0
    assert served[late] == pytest.approx(served[first], abs=1)


def test_who_is_not_emptied_is_passed_over_and_gets_no_more_than_its_share_afterwards(device):
    held, other = device.open(25, 8), device.open(25, 20)
    device.held_up.add(held)
    served = Counter(device.serve(40))
    bound = BATCHES_FINISHED * ROOM
    assert bound <= held.untaken == served[held] < bound + ROOM
    assert served[other] == 160 - served[held]
    device.held_up.clear()
    while held.untaken:
        held.take()
    served = Counter(device.serve(20))
    assert served[held] == pytest.approx(40, abs=1)
    assert served[other] == pytest.approx(40, abs=1)


@pytest.fixture
def live_device(tiny_bundle, avatar):
    """Batches of 1 to 8 frames, 10 ms each."""
    return Device(tiny_bundle, avatar, (1, 2, 4, 8), lambda size: 0.01 * size)


def test_a_live_stream_gets_two_frames_first_and_then_as_many_as_it_can_wait_for(live_device):
    speaks = live_device.open(25, 4, live=True)
    sizes = []
    for shown_later in (0, 1, 2, 4, 20, 0):
        speaks.shown_later = shown_later
        sizes.append(len(live_device.batch()))
    assert sizes[:-1] == [2, 4, 8, 8, 8], "40 ms to spare for each that waits to be shown"
    assert sizes[-1] == 8, "who is behind in the middle of a word gets on with what costs least for a frame"


def test_the_one_that_has_least_to_show_decides_for_all(live_device):
    first, second = live_device.open(25, 4, live=True), live_device.open(25, 4, live=True)
    first.shown_later = 20
    served = Counter(live_device.batch())
    assert served == {first: 2, second: 2}


def test_as_many_first_frames_as_a_device_makes_at_once_are_made_of_each(tiny_bundle, avatar):
    device = Device(tiny_bundle, avatar, (1, 4, 8, 16), lambda size: 0.01 * size, first_frames=4)
    first, second = device.open(25, 4, live=True), device.open(25, 4, live=True)
    assert Counter(device.batch()) == {first: 4, second: 4}


def test_frames_on_their_way_count_as_those_that_are_there(live_device):
    speaks = live_device.open(25, 4, live=True)
    sizes = []
    for _ in range(3):
        live_device.scheduler.admit()
        sizes.append(len(live_device.scheduler.take_batch()))
    assert sizes == [2, 8, 8]
    assert speaks.untaken == 0


def test_a_live_stream_that_is_silent_holds_no_batch_small(live_device):
    silent = live_device.open(25, 4, loud=0.0, live=True, silence=SilenceLevel())
    renders = live_device.open(25, 4)
    assert Counter(live_device.batch())[renders] == 8
    assert silent.untaken == 0


def test_who_goes_leaves_its_share_to_the_others(device):
    stays, goes = device.open(25, 8), device.open(25, 8)
    device.serve(4)
    device.scheduler.remove(goes)
    assert list(device.scheduler) == [stays]
    assert set(device.serve(4)) == {stays}


def test_a_batch_holds_as_many_made_frames_as_there_is_room_and_free_ones_besides(device):
    idle = device.open(25, 4, loud=0.0, silence=SilenceLevel())
    assert len(device.batch()) == FREE_FRAMES * ROOM
    speaks = device.open(25, 4)
    served = device.batch()
    assert served.count(speaks) <= ROOM
    assert idle in served
    assert len(served) <= FREE_FRAMES * ROOM


def test_without_work_there_is_no_batch(device):
    device.open()
    assert device.batch() == []
    assert device.scheduler.next_hop(to_fill=False) is None


def test_the_hop_whose_frames_come_first_is_encoded_first(device):
    ahead = device.open(25, hop=Fraction(1, 5))
    device.say(ahead, 2)
    device.scheduler.admit()
    assert device.scheduler.next_hop(to_fill=False) is ahead
    for _ in range(3):
        device.advance(ahead)
    device.serve(1)
    late = device.open(25, hop=Fraction(1, 5))
    device.say(late, 2)
    device.scheduler.admit()
    assert device.scheduler.next_hop(to_fill=False) is late, "the other has a batch of requests waiting"
    device.advance(late)
    assert device.scheduler.next_hop(to_fill=True) is None, "all together they fill the batch"


@pytest.mark.parametrize("pieces", [(3.0,), (1.1, 0.3, 1.6), (0.5,) * 6, (0.07,) * 42 + (0.06,)])
def test_batches_of_a_recording_are_full_however_fast_its_sound_comes(device, pieces):
    """Also where a hop does not end with a batch: 25 frames are six batches of 4 and one frame."""
    session = device.open(25, hop=Fraction(1), fills_batches=True)
    served = []

    def serve():
        while batch := device.batch():
            served.append(batch.count(session))

    for seconds in pieces:
        device.say(session, seconds)
        device.encode(session)
        serve()
    session.end_sound(0.0)
    device.encode(session)
    serve()
    assert served == [ROOM] * 18 + [3]
    assert session.is_done


def test_one_that_rests_is_planned_though_others_fill_the_next_batch(device):
    """Its hop costs no model work; that of another speaker waits."""
    device.open(seconds=1)
    speaker, resting = (device.open(silence=SilenceLevel(), hop=Fraction(1, 5)) for _ in range(2))
    device.say(speaker, 1)
    device.say(resting, 1, loud=0.0)
    device.scheduler.admit()
    assert device.scheduler.next_hop(to_fill=True) is resting
    resting.advance(0.0)
    assert device.scheduler.next_hop(to_fill=True) is None
    assert device.scheduler.next_hop(to_fill=False) is speaker
