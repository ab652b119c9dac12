"""What is watched beside what is heard."""

import threading
from dataclasses import replace

import pytest
from clocks import FakeClock
from test_sink_worker import STREAM, Sink, frame

from musetalk_cli.live.fan_out import FanOut
from musetalk_cli.live.sink_worker import Queueing
from musetalk_cli.measure.stages import StageStats

TIMEOUT_S = 30

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Watched(Sink):
    name = "window"
    watched = True


class Heard(Sink):
    name = "loudspeaker"
    watched = True
    delay_s = 0.1
    breaks = 2

    def __init__(self):
        super().__init__()
        self.muted = []

    def mute(self, epoch):
        self.muted.append(epoch)


class Waits(FakeClock):
    """A clock whose waits are the test's to end; threads that do not wait find it standing still."""

    def __init__(self):
        super().__init__()
        self.waited = []
        self.asked, self.gate = threading.Event(), threading.Event()

    def wait(self, seconds, wake):
        self.waited.append(seconds)
        self.asked.set()
        assert self.gate.wait(TIMEOUT_S), "nobody ended the wait"
        return wake.is_set()


def fan_out(*sinks, clock):
    written = []
    house = FanOut(
        sinks,
        Queueing(STREAM, 32, False, lambda: 0),
        StageStats(clock),
        lambda worker, frame, at: written.append((worker.name, frame.request.index)),
        lambda worker, error: None,
    )
    house.open()
    return house, written


def test_a_picture_that_is_watched_waits_until_its_sound_is_a_frame_away():
    clock, window, speaker, file = Waits(), Watched(), Heard(), Sink()
    house, written = fan_out(window, speaker, file, clock=clock)
    house.put(frame(0))
    assert clock.asked.wait(TIMEOUT_S)
    clock.gate.set()
    house.finish()
    assert clock.waited == [pytest.approx(0.1 - 1 / 25)]
    assert sorted(written) == [("loudspeaker", 0), ("viewer", 0), ("window", 0)]


def test_a_wait_counts_from_when_the_frame_was_handed_over():
    """The first frame's wait takes so long that the others need none."""
    clock, window = Waits(), Watched()
    house, written = fan_out(window, Heard(), clock=clock)
    house.put(frame(0))
    assert clock.asked.wait(TIMEOUT_S)
    house.put(frame(1))
    house.put(frame(2))
    clock.time += 1
    clock.gate.set()
    house.finish()
    assert len(clock.waited) == 1
    assert [index for name, index in written if name == "window"] == [0, 1, 2]


def test_where_sound_is_heard_at_once_no_picture_waits():
    clock, window, speaker = Waits(), Watched(), Heard()
    speaker.delay_s = 0.03
    house, _ = fan_out(window, speaker, clock=clock)
    house.put(frame(0))
    house.finish()
    assert clock.waited == []


def test_an_end_does_not_wait():
    clock, window = Waits(), Watched()
    house, _ = fan_out(window, Heard(), clock=clock)
    house.put(frame(0))
    assert clock.asked.wait(TIMEOUT_S)
    house.abandon()
    clock.gate.set()
    house.abort()
    assert window.frames == []


def test_what_is_heard_is_muted_and_its_breaks_are_counted():
    speakers = [Heard(), Heard()]
    house, _ = fan_out(Watched(), *speakers, clock=FakeClock())
    house.mute(3)
    assert [speaker.muted for speaker in speakers] == [[3], [3]]
    assert house.breaks == 4
    house.abort()


def test_an_interrupt_reaches_a_picture_that_waits():
    clock, window, epoch = Waits(), Watched(), [0]
    house = FanOut(
        [window, Heard()],
        Queueing(STREAM, 32, False, lambda: epoch[0]),
        StageStats(clock),
        lambda *_: None,
        lambda *_: None,
    )
    house.open()
    queued = frame(0)
    house.put(queued)
    house.put(replace(queued, pts=queued.pts))
    assert clock.asked.wait(TIMEOUT_S)
    epoch[0] = 1
    clock.gate.set()
    house.finish()
    assert (window.frames[1].image == queued.idle).all()
