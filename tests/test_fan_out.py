"""Several sinks of one stream: all get everything, and what one of them does is its own affair."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from clocks import FakeClock
from test_sink_worker import STREAM, TIMEOUT_S, Sink, frame

from musetalk_cli.errors import OutputError
from musetalk_cli.live.fan_out import FanOut
from musetalk_cli.live.sink_worker import Queueing
from musetalk_cli.measure.stages import StageStats

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Run:
    """The workers of some sinks, and what they tell."""

    def __init__(self, *sinks, capacity=32, waits=True, clock=None):
        self.epoch = 0
        self.written, self.failed = [], []
        self.wrote = threading.Semaphore(0)
        self.fan_out = FanOut(
            sinks,
            Queueing(STREAM, capacity, waits, lambda: self.epoch),
            StageStats(clock or FakeClock()),
            self._note,
            lambda worker, error: self.failed.append((worker.name, str(error))),
        )

    def _note(self, worker, frame, at):
        self.written.append((worker.name, frame.request.index))
        self.wrote.release()

    def put(self, *frames):
        for one in frames:
            self.fan_out.put(one)


def named(name, *arguments, **options):
    sink = Sink(*arguments, **options)
    sink.name = name
    return sink


def test_every_sink_gets_every_frame_itself_and_in_order():
    sinks = [Sink(), Sink(), Sink()]
    run, frames = Run(*sinks), [frame(index) for index in range(50)]
    run.fan_out.open()
    run.put(*frames)
    run.fan_out.finish()
    for sink in sinks:
        assert sink.frames == frames
        assert sink.calls == ["open", *["write"] * 50, "finish"]
    assert not run.fan_out.all_failed
    assert run.failed == []


def test_sinks_of_one_name_are_told_apart():
    run = Run(named("null"), named("window"), named("null"), named("null"))
    run.fan_out.open()
    run.put(frame(0))
    run.fan_out.finish()
    assert sorted(run.written) == [("null", 0), ("null (2)", 0), ("null (3)", 0), ("window", 0)]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_where_one_cannot_be_opened_none_stays_open(which):
    sinks = [Sink("open" if number == which else None) for number in range(3)]
    run = Run(*sinks)
    with pytest.raises(OutputError, match=r"open failed\."):
        run.fan_out.open()
    for number, sink in enumerate(sinks):
        assert sink.calls[-1] == "abort"
        assert ("open" in sink.calls) == (number <= which)
    assert run.failed == [], "it is raised, and not told besides"


def test_one_that_fails_is_told_of_and_the_others_go_on():
    good, bad = named("good"), named("bad", "write")
    run = Run(good, bad)
    run.fan_out.open()
    run.put(*(frame(index) for index in range(10)))
    run.fan_out.finish()
    assert good.calls == ["open", *["write"] * 10, "finish"]
    assert bad.calls == ["open", "write", "abort"]
    assert run.failed == [("bad", "write failed.")]
    assert not run.fan_out.all_failed


def test_all_have_failed_when_the_last_one_has():
    run = Run(named("one", "write"), named("other", "finish"))
    run.fan_out.open()
    assert not run.fan_out.all_failed
    run.put(frame(0))
    run.fan_out.finish()
    assert run.fan_out.all_failed
    assert sorted(run.failed) == [("one", "write failed."), ("other", "finish failed.")]


def test_sinks_are_completed_side_by_side():
    """Each one's end waits for that of the other, which takes longest together and never one by one."""
    together = threading.Barrier(2)

    class Slow(Sink):
        def finish(self):
            together.wait(TIMEOUT_S)
            super().finish()

    sinks = [Slow(), Slow()]
    run = Run(*sinks)
    run.fan_out.open()
    run.put(frame(0))
    run.fan_out.finish()
    assert [sink.calls[-1] for sink in sinks] == ["finish"] * 2
    assert run.failed == []


def test_what_waits_is_told_of_the_one_that_is_furthest_behind():
    stuck, free = Sink(shut=True), Sink()
    run = Run(free, stuck)
    run.fan_out.open()
    run.put(frame(0))
    assert stuck.entered.wait(TIMEOUT_S)
    run.put(*(frame(index) for index in range(1, 6)))
    for _ in range(6):
        assert run.wrote.acquire(timeout=TIMEOUT_S), "the free one does not wait for the other"
    assert run.fan_out.waiting == 5
    stuck.gate.set()
    run.fan_out.finish()
    assert run.fan_out.waiting == 0
    assert [one.request.index for one in stuck.frames] == list(range(6))


def test_pictures_held_are_counted_over_all_sinks():
    """Nobody waits for the slow ones: with room for two, three of five that wait hold the picture before."""
    slow = [Sink(shut=True), Sink(shut=True)]
    run, frames = Run(*slow, Sink(), capacity=2, waits=False), [frame(index) for index in range(6)]
    run.fan_out.open()
    run.put(frames[0])
    for sink in slow:
        assert sink.entered.wait(TIMEOUT_S)
    run.put(*frames[1:])
    counted = run.fan_out.held
    for sink in slow:
        sink.gate.set()
    run.fan_out.finish()
    for sink in slow:
        assert all(np.array_equal(one.image, frames[2].image) for one in sink.frames[2:])
    assert counted >= 6, "three in each of the slow ones"
    assert counted == run.fan_out.held


def test_frames_that_come_at_once_as_the_stream_is_stopped_keep_their_pictures():
    """The sink is as fast as it was: they were to come one by one."""
    slow = Sink(shut=True)
    run, frames = Run(slow, capacity=2, waits=False), [frame(index) for index in range(6)]
    run.fan_out.open()
    run.put(frames[0])
    assert slow.entered.wait(TIMEOUT_S)
    run.fan_out.take_last()
    run.put(*frames[1:])
    slow.gate.set()
    run.fan_out.finish()
    assert run.fan_out.held == 0
    for one, given in zip(slow.frames, frames, strict=True):
        assert np.array_equal(one.image, given.image)


def test_whoever_hands_over_a_frame_goes_on_when_the_sinks_are_abandoned():
    stuck = Sink(shut=True)
    run = Run(stuck, capacity=1)
    run.fan_out.open()
    run.put(frame(0))
    assert stuck.entered.wait(TIMEOUT_S)
    run.put(frame(1))
    waiting = threading.Thread(target=run.put, args=[frame(2)])
    waiting.start()
    run.fan_out.abandon()
    waiting.join(TIMEOUT_S)
    assert not waiting.is_alive()
    stuck.gate.set()
    run.fan_out.abort()
    assert stuck.calls == ["open", "write", *["abort"] * (len(stuck.calls) - 2)]
    assert "abort" in stuck.calls


def test_an_abort_ends_all_of_them_without_a_result_also_before_they_were_open():
    opened, never = [Sink(), Sink()], [Sink(), Sink()]
    run = Run(*opened)
    run.fan_out.open()
    run.put(frame(0))
    run.fan_out.abort()
    Run(*never).fan_out.abort()
    for sink in (*opened, *never):
        assert "finish" not in sink.calls
        assert sink.calls[-1] == "abort"


def test_a_stream_without_sinks_has_nothing_left():
    run = Run()
    run.fan_out.open()
    run.put(frame(0))
    run.fan_out.finish()
    assert run.fan_out.all_failed
    assert (run.fan_out.waiting, run.fan_out.held) == (0, 0)


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


def opened(*sinks, clock):
    run = Run(*sinks, waits=False, clock=clock)
    run.fan_out.open()
    return run


def test_a_picture_that_is_watched_waits_until_its_sound_is_a_frame_away():
    clock, window, speaker, file = Waits(), Watched(), Heard(), Sink()
    run = opened(window, speaker, file, clock=clock)
    run.put(frame(0))
    assert clock.asked.wait(TIMEOUT_S)
    clock.gate.set()
    run.fan_out.finish()
    assert clock.waited == [pytest.approx(0.1 - 1 / 25)]
    assert sorted(run.written) == [("loudspeaker", 0), ("viewer", 0), ("window", 0)]


def test_a_wait_counts_from_when_the_frame_was_handed_over():
    """The first frame's wait takes so long that the others need none."""
    clock, window = Waits(), Watched()
    run = opened(window, Heard(), clock=clock)
    run.put(frame(0))
    assert clock.asked.wait(TIMEOUT_S)
    run.put(frame(1))
    run.put(frame(2))
    clock.time += 1
    clock.gate.set()
    run.fan_out.finish()
    assert len(clock.waited) == 1
    assert [index for name, index in run.written if name == "window"] == [0, 1, 2]


def test_where_sound_is_heard_at_once_no_picture_waits():
    clock, window, speaker = Waits(), Watched(), Heard()
    speaker.delay_s = 0.03
    run = opened(window, speaker, clock=clock)
    run.put(frame(0))
    run.fan_out.finish()
    assert clock.waited == []


def test_an_end_does_not_wait():
    clock, window = Waits(), Watched()
    run = opened(window, Heard(), clock=clock)
    run.put(frame(0))
    assert clock.asked.wait(TIMEOUT_S)
    run.fan_out.abandon()
    clock.gate.set()
    run.fan_out.abort()
    assert window.frames == []


def test_what_is_heard_is_muted_and_its_breaks_are_counted():
    speakers = [Heard(), Heard()]
    run = opened(Watched(), *speakers, clock=FakeClock())
    run.fan_out.mute(3)
    assert [speaker.muted for speaker in speakers] == [[3], [3]]
    assert run.fan_out.breaks == 4
    run.fan_out.abort()


def test_an_interrupt_reaches_a_picture_that_waits():
    clock, window = Waits(), Watched()
    run = opened(window, Heard(), clock=clock)
    queued = frame(0)
    run.put(queued, replace(queued, pts=queued.pts))
    assert clock.asked.wait(TIMEOUT_S)
    run.epoch = 1
    clock.gate.set()
    run.fan_out.finish()
    assert (window.frames[1].image == queued.idle).all()
