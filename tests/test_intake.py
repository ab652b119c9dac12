"""The intake: what a session hears and when, on a clock that tests move."""

import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from runs import TIMEOUT_S

from musetalk_cli.bench.stand_in import deaf, stand_in
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import JobConfig, SilenceLevel
from musetalk_cli.engine.engine import Engine
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.live.intake import PATIENCE_S, TOGETHER, Intake
from musetalk_cli.live.playout import PlayoutSchedule
from musetalk_cli.live.policy import StreamPolicy
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock, Delivery

RATE, FRAME = 16_000, 640
CHUNK = Fraction(1, 5)
JOB = JobConfig(chunk=CHUNK, sharpen=None, image_ops="cpu")


def loud(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal((samples, 1))).astype(np.float32)


class Heard:
    """An intake before a real session, and what this heard."""

    def __init__(self, delivery=Delivery.LIVE, *, ahead_s=30.0, paced=True):
        self.clock = FakeClock(100.0)
        self.engine = Engine(stand_in(), JOB, StageStats(self.clock), encode=deaf, live=True)
        policy = StreamPolicy.of_delivery(delivery, "auto", CHUNK, watched=True)
        self.policy = replace(policy, paced=paced)
        self.schedule = PlayoutSchedule(Timeline(JOB.fps), CHUNK) if paced else None
        options = SessionOptions(SilenceLevel(), live=paced)
        avatar = synthetic_avatar(96, 72, 40, 3)
        self.session = self.engine.open(avatar, JOB.fps, CHUNK, None, RATE, 1, options)
        self.intake = Intake(self.session, self.policy, self.schedule, self.clock, self.engine.stats, ahead_s)
        self.frames = []
        self.worked = False

    def put(self, *blocks, ends=False):
        for number, block in enumerate(blocks):
            last = ends and number == len(blocks) - 1
            self.intake.put(self.session.epoch, AudioBlock(block, self.clock.now(), last))

    def turn(self):
        """One turn of the device loop; frames are shown as soon as they are due."""
        self.intake.note()
        goes_on, self.worked = self.intake.hear(), False
        while self.engine.step():
            self.worked = True
            while self.session.untaken:
                frame = self.session.take()
                if self.schedule is not None:
                    self.schedule.due(frame)
                self.frames.append(frame)
        return goes_on

    def until(self, time):
        """Let time pass, as far as the intake sleeps."""
        while self.clock.time < time:
            self.turn()
            if not self.worked:
                self.clock.time = min(time, max(self.clock.time + 0.001, self.intake.wake_at))

    @property
    def sound(self):
        return np.concatenate([frame.request.audio for frame in self.frames] or [np.zeros((0, 1))])[:, 0]


def test_a_live_stream_begins_with_silence_where_nothing_comes():
    live = Heard()
    live.turn()
    assert live.frames == []
    assert live.intake.wake_at == pytest.approx(100 + PATIENCE_S)
    live.until(101.0)
    assert len(live.frames) == pytest.approx((1 - PATIENCE_S) * 25, abs=2), "at the frame rate"
    assert not live.sound.any()


@pytest.mark.parametrize("round_s", [0.04, 0.15, 0.4])
def test_silence_goes_on_at_the_frame_rate_where_the_device_works_for_others(round_s):
    """The session has a turn once in a round, and what it plans then is finished a round later."""
    live = Heard()
    live.until(101.0)
    before, begun = len(live.frames), live.clock.time
    while live.clock.time < begun + 8:
        live.intake.note()
        live.intake.hear(round_s)
        live.clock.time += round_s
        while live.engine.step():
            while live.session.untaken:
                live.frames.append(live.session.take())
                live.schedule.due(live.frames[-1])
    late = [frame.composited - frame.request.index / 25 for frame in live.frames[before:]]
    assert len(late) == pytest.approx(25 * (live.clock.time - begun), abs=2 + TOGETHER + 50 * round_s)
    # once it was known how long a round is, none comes after its time
    settled = late[len(late) // 2 :]
    assert max(settled) <= late[0] - begun + begun + 1e-6


@pytest.mark.parametrize("round_s", [0.04, 0.1, 0.15, 0.4])
def test_a_microphone_in_silence_keeps_the_frame_rate_where_the_device_works_for_others(round_s):
    """Its sound comes all the time, and it has a turn once in a round."""
    live, block = Heard(), np.full((RATE // 50, 1), 1e-4, np.float32)
    sent, shown = 0, []
    while live.clock.time < 112:
        while 100 + (sent + 1) / 50 <= live.clock.time:
            sent += 1
            live.intake.put(live.session.epoch, AudioBlock(block, 100 + sent / 50))
        live.intake.note()
        live.intake.hear(round_s)
        live.clock.time += round_s
        while live.engine.step():
            while live.session.untaken:
                frame = live.session.take()
                shown.append(live.schedule.due(frame).at)
                live.frames.append(frame)
    assert len(live.frames) == pytest.approx(12 * 25, abs=25 * (1 + 2 * round_s))
    assert live.sound[RATE:].all(), "once it flows, no silence takes the place of what comes"
    if 2 * round_s <= CHUNK:  # else the sound comes too late for it
        assert np.diff(shown[len(shown) // 2 :]).max() < 2 / 25, "and evenly"


@pytest.mark.parametrize("delivery", [Delivery.SENT, Delivery.PLAYED, Delivery.RECORDED])
def test_elsewhere_sound_is_waited_for(delivery):
    live = Heard(delivery)
    live.until(105.0)
    assert live.frames == []


def test_without_a_clock_nothing_is_put_in_and_nothing_is_cut_short():
    live = Heard(paced=False)
    live.put(loud(2 * FRAME))
    live.until(105.0)
    assert live.frames == []


def test_no_more_is_heard_than_the_next_hop_needs():
    live = Heard()
    live.put(*np.split(loud(2 * RATE), 40))
    live.intake.note()
    live.intake.hear()
    assert live.session.hop_ready() is not None
    heard = 40 - live.intake.waiting
    assert heard * RATE // 20 <= 0.16 * RATE + RATE // 20


def test_whoever_sends_more_than_may_wait_has_to_wait():
    live = Heard(ahead_s=1.0)
    blocks = np.split(loud(2 * RATE), 40)
    sender = threading.Thread(target=live.put, args=blocks, daemon=True)
    sender.start()
    sender.join(0.3)
    assert live.intake.waiting == 20
    while sender.is_alive() or live.intake.waiting:
        live.until(live.clock.time + 0.5)
        sender.join(0.01)
    sender.join(TIMEOUT_S)
    live.until(live.clock.time + 3)
    said = live.sound[live.sound != 0]
    assert np.array_equal(said, np.concatenate(blocks)[:, 0][np.concatenate(blocks)[:, 0] != 0])


def test_the_smallest_blocks_are_bounded_too():
    live = Heard(ahead_s=1.0)

    def send():
        with pytest.raises(OSError, match="over"):
            live.put(*np.split(loud(1000), 1000))

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    sender.join(0.3)
    assert live.intake.waiting == 100, "each counts as 10 ms"
    live.intake.close(OSError("over"))
    sender.join(TIMEOUT_S)
    assert not sender.is_alive()


def test_an_end_that_is_told_is_not_waited_for():
    """The frames whose own sound is there are made at once, and the rest with silence when it is due."""
    ends = {}
    for told in (True, False):
        live = Heard()
        live.until(101.0)
        live.put(*np.split(loud(RATE), 20), ends=told)
        before = len(live.frames)
        for _ in range(20):
            live.turn()
        ends[told] = len(live.frames) - before
    assert ends[True] == 25
    assert ends[False] < 25


@pytest.mark.parametrize("delivery", [Delivery.LIVE, Delivery.SENT, Delivery.PLAYED, Delivery.RECORDED])
def test_what_an_interrupt_cut_off_is_not_heard(delivery):
    """Sound that plays by itself keeps its place; a recording that waits was not said before it came."""
    live = Heard(delivery)
    old, new = np.split(loud(RATE), 20), np.split(loud(RATE, 1), 20)
    live.put(*old)
    live.session.interrupt()
    live.put(*new)
    live.until(live.clock.time + 3)
    live.intake.close()
    while live.turn():
        pass
    live.session.end_sound(live.clock.now())
    live.turn()
    heard = live.sound[live.sound != 0]
    said = np.concatenate([*old, *new] if delivery is Delivery.RECORDED else new)[:, 0]
    assert np.array_equal(heard, said[said != 0])
    if delivery is Delivery.PLAYED:
        assert len(live.sound) == 2 * RATE
        assert not live.sound[:RATE].any()


def test_a_closed_intake_gives_what_is_inside_and_then_ends():
    live = Heard(Delivery.RECORDED, paced=False)
    live.put(*np.split(loud(RATE), 20))
    live.intake.close()
    turns = 0
    while live.turn():
        turns += 1
        assert turns < 100
    assert live.intake.waiting == 0
    with pytest.raises(HandoffClosed):
        live.put(loud(1))


def test_an_error_that_it_is_closed_with_reaches_the_loop():
    live = Heard()
    live.put(loud(RATE))
    live.intake.close(OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        live.turn()
