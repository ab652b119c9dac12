"""Many streams of the real engine on one device loop: none holds up, ends or slows another."""

import math
import threading
from fractions import Fraction

import pytest
import torch
from clocks import FakeClock
from lives import is_same_picture
from runs import (
    BATCH,
    CHUNK,
    FPS,
    LIVE,
    OFFLINE,
    PACED,
    TIMEOUT_S,
    Gated,
    Run,
    Sink,
    Source,
    make_engine,
    small_avatar,
)  # fmt: skip

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.costs import Costs
from musetalk_cli.errors import DeviceLostError, InputError, OutputError
from musetalk_cli.live.device_loop import LONGEST_ROUND_S, REMEMBERED_S, DeviceLoop
from musetalk_cli.timeline import Timeline

pytestmark = pytest.mark.usefixtures("no_thread_is_left")

BLOCKS = 12
HELD_UP = 44
"""More than all queues between a source and a sink that stands still hold."""


class House:
    """An engine, its loop, and streams on it."""

    def __init__(self, bundle, **parts):
        self.bundle = bundle
        self.engine = make_engine(bundle, FakeClock(), **parts)
        self.loop = DeviceLoop(self.engine, self.engine.stats.clock)
        self.runs = []
        self.raised = []
        self.thread = threading.Thread(target=self._run)

    def add(self, source, sink, policy=LIVE, **options):
        run = Run(self.bundle, source, [sink], policy, engine=self.engine, loop=self.loop, **options)
        self.runs.append(run)
        return run

    def open(self, *runs):
        for run in runs or self.runs:
            run.stream.open()
            self.loop.add(run.stream)

    def start(self):
        self.open()
        self.thread.start()

    def _run(self):
        try:
            self.loop.run()
        except BaseException as error:
            self.raised.append(error)

    def end(self):
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive(), "the loop goes on without a stream"


def is_whole(sink, frames=BLOCKS):
    return sink.indices == list(range(frames)) and sink.calls[-1] == "finish"


@pytest.mark.parametrize(
    ("policy", "place"),
    [(PACED, 2), *(pytest.param(*other, marks=pytest.mark.slow) for other in ((OFFLINE, 0), (LIVE, 1)))],
)
def test_a_stream_whose_sink_stands_still_holds_up_nobody(tiny_bundle, policy, place):
    house, stuck, others = House(tiny_bundle), Gated(), [Sink(), Sink()]
    sinks = list(others)
    sinks.insert(place, stuck)
    for sink in sinks:
        slow = sink is stuck
        house.add(Source(HELD_UP if slow else BLOCKS), sink, LIVE if slow else policy)
    house.start()
    for run in house.runs:
        if run.sinks != [stuck]:
            assert run.stream.join().frames == BLOCKS
    assert all(is_whole(sink) for sink in others)
    assert house.thread.is_alive()
    assert (stuck.frames, stuck.calls) == ([], ["open"])
    stuck.gate.set()
    assert house.runs[place].stream.join().frames == HELD_UP
    house.end()
    assert is_whole(stuck, HELD_UP)


@pytest.mark.slow
def test_while_one_stands_still_each_keeps_the_times_of_its_own_schedule(tiny_bundle):
    """On clocks of their own, that only their own presentation moves."""
    house, stuck = House(tiny_bundle), Gated()
    clocks = [FakeClock(1000.0), FakeClock(1007.0)]
    sinks = [Sink(clock=clock) for clock in clocks]
    held = house.add(Source(HELD_UP), stuck)
    runs = [
        house.add(Source(BLOCKS, start=clock.now()), sink, PACED, clock=clock)
        for clock, sink in zip(clocks, sinks, strict=True)
    ]
    house.start()
    for run, clock, start, sink in zip(runs, clocks, (1000.0, 1007.0), sinks, strict=True):
        run.stream.join()
        wait = float(CHUNK + Timeline(Fraction(FPS)).wait)
        due = [start + wait + number / FPS for number in range(BLOCKS)]
        assert all(taken >= at - 1e-6 for taken, at in zip(sink.times, due, strict=True))
        assert clock.now() == pytest.approx(due[-1])
    assert stuck.frames == []
    stuck.gate.set()
    held.stream.join()
    house.end()


def test_frames_are_those_of_each_stream_alone(tiny_bundle):
    house, avatars = House(tiny_bundle), [small_avatar(), small_avatar(5)]
    sinks, alone = [Sink(), Sink()], [Sink(), Sink()]
    for avatar, sink in zip(avatars, sinks, strict=True):
        house.add(Source(12), sink, avatar=avatar)
    house.start()
    for run in house.runs:
        run.stream.join()
    house.end()
    for avatar, sink, expected in zip(avatars, sinks, alone, strict=True):
        Run(tiny_bundle, Source(12), [expected], LIVE, avatar=avatar).run()
        for ours, theirs in zip(sink.frames, expected.frames, strict=True):
            assert torch.equal(ours.request.tokens, theirs.request.tokens)
            assert is_same_picture(ours.image, theirs.image)


def broken(kind):
    """A stream that fails by itself: source, sinks, policy, and what it ends with."""
    if kind == "short sound":
        return Source(0), Sink(), LIVE, InputError
    if kind == "source":
        return Source(10, InputError("The line was cut.")), Sink(), OFFLINE, InputError
    return Source(BLOCKS), Sink("write", OutputError("The disk is full.")), OFFLINE, OutputError


@pytest.mark.parametrize("kind", [pytest.param("short sound", marks=pytest.mark.slow), "source", "sink"])
def test_a_streams_own_failure_leaves_the_others_untouched(tiny_bundle, kind):
    house, sinks = House(tiny_bundle), [Sink(), Sink()]
    source, sink, policy, error = broken(kind)
    house.add(Source(BLOCKS), sinks[0])
    house.add(source, sink, policy)
    house.add(Source(BLOCKS), sinks[1], OFFLINE)
    house.start()
    with pytest.raises(error):
        house.runs[1].stream.join()
    for number in (0, 2):
        outcome = house.runs[number].stream.join()
        assert (outcome.frames, outcome.failures) == (BLOCKS, [])
    house.end()
    assert house.raised == []
    assert all(is_whole(one) for one in sinks)
    assert sink.calls[-1] == "abort"


class Breaks(CpuPath):
    """Fails with the batch after `batches` of them."""

    def __init__(self, failure, batches):
        self.failure, self.left = failure, batches

    def blend(self, faces, targets):
        self.left -= 1
        if self.left < 0:
            raise self.failure
        return super().blend(faces, targets)


@pytest.mark.parametrize(
    ("error", "failures"),
    [
        (RuntimeError("shapes differ"), 1),
        (torch.AcceleratorError("CUDA error: unspecified launch failure\nand more lines"), math.inf),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), math.inf),
        (torch.OutOfMemoryError("CUDA out of memory."), 1),
    ],
)
def test_a_loop_knows_whether_its_device_can_come_back(tiny_bundle, error, failures):
    house, sink = House(tiny_bundle, images=Breaks(error, 1)), Sink()
    house.add(Source(0, endless=True), sink)
    house.start()
    [told] = house.runs[0].stream.join().failures
    house.end()
    assert house.loop.failures == failures
    assert isinstance(told, DeviceLostError) is (failures == math.inf)
    assert sink.calls[-1] == "finish"


def test_a_failure_of_the_engine_reaches_every_stream(tiny_bundle):
    failure = KeyError("latents")
    house = House(tiny_bundle, images=Breaks(failure, 3))
    sinks = [Sink(), Sink(), Sink()]
    for sink, policy in zip(sinks, (LIVE, PACED, OFFLINE), strict=True):
        house.add(Source(0, endless=True), sink, policy)
    house.start()
    for number in (0, 1):
        outcome = house.runs[number].stream.join()
        assert outcome.failures == [failure]
        assert sinks[number].indices == list(range(outcome.frames))
        assert outcome.frames > 0
        assert sinks[number].calls[-1] == "finish"
    with pytest.raises(KeyError) as caught:
        house.runs[2].stream.join()
    house.end()
    assert caught.value is failure
    assert sinks[2].calls[-1] == "abort"
    assert house.raised == []


def test_a_second_ctrl_c_ends_every_stream_and_the_loop(tiny_bundle):
    house = House(tiny_bundle, images=Breaks(KeyboardInterrupt(), 2))
    sinks = [Sink(), Sink()]
    for sink in sinks:
        house.add(Source(0, endless=True), sink)
    house.start()
    for run in house.runs:
        with pytest.raises(KeyboardInterrupt):
            run.stream.join()
    house.end()
    assert [type(error) for error in house.raised] == [KeyboardInterrupt]
    assert all(sink.calls[-1] == "abort" for sink in sinks)


def test_a_stop_ends_one_stream_alone(tiny_bundle):
    house, endless, other = House(tiny_bundle), Sink(), Sink()
    stopped = house.add(Source(0, endless=True), endless)
    house.add(Source(BLOCKS), other)
    house.start()
    house.runs[1].stream.join()
    assert house.thread.is_alive()
    stopped.stop.set()
    outcome = stopped.stream.join()
    house.end()
    assert outcome.interrupted
    assert endless.indices == list(range(outcome.frames))
    assert is_whole(other)


def test_a_stream_that_comes_while_others_run_gets_all_its_frames(tiny_bundle):
    house, first, late = House(tiny_bundle), Sink(), Sink()
    running = house.add(Source(0, endless=True), first)
    house.start()
    run = house.add(Source(BLOCKS), late, PACED, avatar=small_avatar(4))
    house.open(run)
    assert run.stream.join().frames == BLOCKS
    running.stop.set()
    running.stream.join()
    house.end()
    assert is_whole(late)


class Records(CpuPath):
    """Notes whose frames are placed, and in which thread."""

    def __init__(self):
        self.placed = []

    def place(self, avatar):
        self.placed.append((avatar, threading.current_thread()))
        return super().place(avatar)


def test_an_avatar_is_placed_when_its_stream_opens_and_never_in_a_step(tiny_bundle):
    images = Records()
    house = House(tiny_bundle, images=images)
    avatars = [small_avatar(), synthetic_avatar(96, 72, 40, 4)]
    for number in range(3):
        house.add(Source(12), Sink(), avatar=avatars[number % 2])
    before = list(images.placed)
    assert [avatar for avatar, _ in before] == avatars, "once each, also where two streams show one"
    house.start()
    for run in house.runs:
        run.stream.join()
    house.end()
    assert images.placed == before
    assert house.thread not in {thread for _, thread in images.placed}
    held = [house.engine.images.holds(avatar) for avatar in avatars]
    assert not any(held), "and it goes with the last stream"


def test_an_avatar_stays_while_another_stream_shows_it(tiny_bundle):
    house, stuck, avatar = House(tiny_bundle, images=Records()), Gated(), small_avatar()
    house.add(Source(12), Sink(), avatar=avatar)
    house.add(Source(HELD_UP), stuck, avatar=avatar)
    house.start()
    house.runs[0].stream.join()
    assert stuck.entered.wait(TIMEOUT_S)
    assert house.engine.images.holds(avatar)
    stuck.gate.set()
    house.runs[1].stream.join()
    house.end()
    assert not house.engine.images.holds(avatar)


def test_a_loop_without_a_stream_ends(tiny_bundle):
    house = House(tiny_bundle)
    house.start()
    house.end()


def test_a_loop_that_is_to_stay_serves_streams_one_after_the_other_and_ends_when_told(tiny_bundle):
    house, until = House(tiny_bundle), threading.Event()
    house.thread = threading.Thread(target=house.loop.run, args=(until,))
    house.thread.start()
    for _ in range(2):
        run = house.add(Source(BLOCKS), Sink())
        house.open(run)
        assert run.stream.join().frames == BLOCKS
        assert house.thread.is_alive()
    until.set()
    house.end()


@pytest.mark.parametrize(
    "step",
    ["advance", *(pytest.param(other, marks=pytest.mark.slow) for other in ("understand", "assemble"))],
)
def test_what_a_session_fails_with_inside_the_engine_is_its_own(tiny_bundle, step):
    house, sinks, failure = House(tiny_bundle), [Sink(), Sink(), Sink()], KeyError("frame")
    avatars = [small_avatar(), small_avatar(5), small_avatar(4)]
    for sink, avatar in zip(sinks, avatars, strict=True):
        house.add(Source(BLOCKS), sink, avatar=avatar)

    def fails(*_):
        raise failure

    setattr(house.runs[1].session, step, fails)
    house.start()
    with pytest.raises(KeyError) as caught:
        house.runs[1].stream.join()
    assert caught.value is failure
    for number in (0, 2):
        assert house.runs[number].stream.join().failures == []
    house.end()
    assert house.raised == []
    for number in (0, 2):
        Run(tiny_bundle, Source(BLOCKS), [alone := Sink()], LIVE, avatar=avatars[number]).run()
        assert is_whole(sinks[number])
        for ours, theirs in zip(sinks[number].frames, alone.frames, strict=True):
            assert torch.equal(ours.request.tokens, theirs.request.tokens)
            assert is_same_picture(ours.image, theirs.image)


class Rounds:
    """A loop with some streams whose rounds take what a test says."""

    def __init__(self, bundle, streams, costs=None):
        self.house = House(bundle)
        self.clock = self.house.engine.stats.clock
        self.house.engine.costs = costs or Costs()
        self.house.engine.step = self._step
        for _ in range(streams):
            self.house.add(Source(0, stays=True), Sink())
        self.house.open()
        self.took = 0.0

    def _step(self):
        self.clock.time += self.took
        return True

    def turn(self, took):
        """One round; what a stream may have to wait for the next."""
        self.took = took
        self.house.loop.turn()
        return self.house.loop.round_s

    def end(self):
        for run in self.house.runs:
            run.stream.abort(KeyError())


def test_the_longest_round_of_the_past_is_what_a_stream_may_wait(tiny_bundle):
    rounds = Rounds(tiny_bundle, 2)
    assert [rounds.turn(took) for took in (0.2, 0.05, *[0.0] * 100)] == pytest.approx([0.2] * 102)
    rounds.clock.time += REMEMBERED_S - 0.1
    assert rounds.turn(0.0) == pytest.approx(0.2)
    assert rounds.turn(0.01) == pytest.approx(0.2)
    rounds.clock.time += 0.2
    assert rounds.turn(0.0) == pytest.approx(0.01)
    rounds.end()


def test_the_first_long_round_is_known_before_it_comes(tiny_bundle):
    """By what a hop and the largest batch took as the engine warmed up, and what else the machine may do."""
    rounds = Rounds(tiny_bundle, 2, Costs(0.01, {1: 0.05, BATCH: 0.12}))
    assert rounds.house.loop.round_s == pytest.approx(0.13 / 0.8)
    assert rounds.turn(0.02) == pytest.approx(0.13 / 0.8)
    assert rounds.turn(0.2) == pytest.approx(0.2)
    rounds.end()


def test_a_stream_that_is_alone_waits_for_nobody(tiny_bundle):
    rounds = Rounds(tiny_bundle, 1, Costs(0.01, {BATCH: 0.12}))
    assert [rounds.turn(took) for took in (0.2, 0.0)] == [0.0, 0.0]
    rounds.end()


def test_nothing_is_made_ahead_without_a_bound(tiny_bundle):
    rounds = Rounds(tiny_bundle, 2, Costs(1.0, {BATCH: 20.0}))
    assert rounds.turn(30.0) == LONGEST_ROUND_S
    rounds.end()
