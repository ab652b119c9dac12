import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock

from musetalk_cli.errors import OutputError
from musetalk_cli.live import sink_worker
from musetalk_cli.live.sink_worker import BEHIND_S, Queueing, SinkWorker
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.types import Fate, Frame, FrameRequest, StreamFormat

RATE = 48_000
STREAM = StreamFormat(16, 12, Fraction(25), RATE, 2)
SAMPLES = RATE // 25
PATCH = slice(3, 9), slice(4, 12)
TIMEOUT_S = 30


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Sink:
    """Records what happens to it, waits in `write` for its gate, and fails where it is told to."""

    name = "viewer"
    watched = False

    def __init__(self, fails_at=None, *, shut=False):
        self.fails_at = fails_at
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.calls = []
        self.frames = []
        self.threads = set()
        if not shut:
            self.gate.set()

    def _call(self, name):
        self.calls.append(name)
        self.threads.add(threading.current_thread())
        if self.fails_at == name:
            raise OutputError(f"{name} failed.")

    def open(self, stream):
        assert stream.sample_rate == STREAM.sample_rate
        self._call("open")

    def write(self, frame):
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S), "nobody opened the gate"
        self._call("write")
        self.frames.append(frame)

    def finish(self):
        self._call("finish")

    def abort(self):
        self.calls.append("abort")


class Run:
    """A worker, and what it tells."""

    def __init__(self, sink, capacity=32, *, waits=True, stream=STREAM):
        self.sink = sink
        self.epoch = 0
        self.clock = FakeClock()
        self.stats = StageStats(self.clock)
        self.written, self.failed = [], []
        self.worker = SinkWorker(
            sink,
            sink.name,
            Queueing(stream, capacity, waits, lambda: self.epoch),
            self.stats,
            lambda worker, frame, at: self.written.append((frame.request.index, at)),
            lambda worker, error: self.failed.append((worker, error)),
        )

    def put(self, *frames):
        for frame in frames:
            self.worker.put(frame)


def frame(index, epoch=0, fate=Fate.SPEAKING, seed=7):
    """A picture that differs from the idle one in its patch only, and noise as its sound."""
    random = np.random.default_rng(index + seed)
    idle = random.integers(0, 256, (12, 16, 3), np.uint8)
    image = idle.copy()
    if fate is not Fate.IDLE:
        image[PATCH] = random.integers(0, 256, (6, 8, 3), np.uint8)
    audio = random.uniform(0.5, 1, (SAMPLES, 2)).astype(np.float32)
    request = FrameRequest(index, None, audio, 0.0, 0.0, 0, epoch=epoch)
    return Frame(request, image, Fraction(index, 25), 0.0, fate, idle)


def same(ours, theirs):
    return np.array_equal(ours.image, theirs.image) and np.array_equal(
        ours.request.audio, theirs.request.audio
    )


def is_half(written, queued):
    """True where a picture is half-way from the queued one to its idle one, to within rounding."""
    middle = (queued.image.astype(int) + queued.idle.astype(int)) / 2
    return np.abs(written.image - middle).max() <= 0.5


def interrupted(queued, *, after=(), interrupts=1):
    """What is written where an interrupt comes while a sink is in its first frame and others are queued."""
    run = Run(Sink(shut=True))
    run.worker.open()
    run.put(queued[0])
    assert run.sink.entered.wait(TIMEOUT_S)
    run.put(*queued[1:])
    run.epoch += interrupts
    run.put(*after)
    run.sink.gate.set()
    run.worker.finish()
    assert run.worker.failure is None
    return run.sink.frames


def test_frames_go_through_as_they_are_and_in_order():
    run = Run(Sink())
    run.worker.open()
    frames = [frame(index) for index in range(100)]
    run.put(*frames)
    run.worker.finish()
    assert all(written is given for written, given in zip(run.sink.frames, frames, strict=True))
    assert run.sink.calls == ["open", *["write"] * 100, "finish"]
    assert run.written == [(index, run.clock.now()) for index in range(100)]
    assert run.stats.summary(())["sink"].count == 100
    assert (run.failed, run.worker.failure, run.worker.name) == ([], None, "viewer")
    assert len(run.sink.threads) == 1
    assert threading.current_thread() not in run.sink.threads


def test_the_time_told_is_that_before_the_sink_has_the_frame():
    class Slow(Sink):
        def write(self, frame):
            run.clock.time += 1
            super().write(frame)

    run = Run(Slow())
    run.worker.open()
    run.put(frame(0), frame(1))
    run.worker.finish()
    assert run.written == [(0, 1000.0), (1, 1001.0)]
    assert run.stats.summary(())["sink"].total_ms == pytest.approx(2000)


def test_what_was_queued_before_an_interrupt_is_idle_from_the_second_frame_on():
    queued = [frame(index) for index in range(8)]
    after = [frame(8, epoch=1), frame(9, epoch=1)]
    written = interrupted(queued, after=after)
    assert [one.request.index for one in written] == list(range(10))
    assert written[0] is queued[0], "the sink had it already"
    assert is_half(written[1], queued[1])
    for ours, theirs in zip(written[2:8], queued[2:], strict=True):
        assert np.array_equal(ours.image, theirs.idle)
        assert ours.fate is Fate.DISCARDED
    assert all(ours is theirs for ours, theirs in zip(written[8:], after, strict=True))


def test_nothing_outside_the_patch_changes_at_an_interrupt():
    queued = [frame(index) for index in range(4)]
    outside = np.ones((12, 16), bool)
    outside[PATCH] = False
    for ours, theirs in zip(interrupted(queued), queued, strict=True):
        assert np.array_equal(ours.image[outside], theirs.idle[outside])


def test_the_sound_dies_away_within_10_ms_and_stays_silent():
    queued = [frame(index) for index in range(4)]
    written = interrupted(queued)
    said, heard = queued[1].request.audio, written[1].request.audio
    assert (heard.shape, heard.dtype) == (said.shape, said.dtype)
    share = heard / said
    assert np.array_equal(heard[0], said[0]), "no step where it begins"
    assert np.all(np.diff(share[:, 0]) <= 1e-6)
    assert np.abs(np.diff(share[:, 0])).max() < 0.01, "no click"
    assert not heard[RATE // 100 :].any()
    assert heard[RATE // 200].all()
    for one in written[2:]:
        assert one.request.audio.shape == said.shape
        assert not one.request.audio.any()


def test_what_was_queued_is_not_written_into():
    """Frames are shared with the other sinks."""
    queued, before = [frame(index) for index in range(4)], [frame(index) for index in range(4)]
    interrupted(queued)
    for ours, theirs in zip(queued, before, strict=True):
        assert same(ours, theirs)
        assert np.array_equal(ours.idle, theirs.idle)


def test_an_idle_frame_stays_that_and_is_silent():
    queued = [frame(0), *(frame(index, fate=Fate.IDLE) for index in (1, 2)), frame(3)]
    written = interrupted(queued)
    for ours, theirs in zip(written[1:], queued[1:], strict=True):
        assert np.array_equal(ours.image, theirs.idle)
    assert not written[2].request.audio.any()


def test_a_held_picture_fades_too():
    queued = [frame(0), frame(1, fate=Fate.HELD), frame(2, fate=Fate.HELD)]
    written = interrupted(queued)
    assert is_half(written[1], queued[1])
    assert np.array_equal(written[2].image, queued[2].idle)


def test_frames_of_an_interrupt_that_was_interrupted_itself_are_idle():
    queued = [frame(0), frame(1), frame(2), frame(3, epoch=1), frame(4, epoch=1)]
    written = interrupted(queued, after=[frame(5, epoch=2)], interrupts=2)
    assert is_half(written[1], queued[1])
    for place in (2, 3, 4):
        assert np.array_equal(written[place].image, queued[place].idle)
        assert not written[place].request.audio.any()
    assert same(written[5], frame(5, epoch=2))


class Stepped(Sink):
    """Lets one frame in at a time."""

    def __init__(self):
        super().__init__()
        self.asked, self.steps = threading.Semaphore(0), threading.Semaphore(0)

    def write(self, frame):
        self.asked.release()
        assert self.steps.acquire(timeout=TIMEOUT_S)
        super().write(frame)


def interrupted_twice(queued):
    """What is written where interrupts come while the first and the third of queued frames are written."""
    run = Run(Stepped())
    run.worker.open()
    run.put(*queued)
    for place in range(len(queued)):
        assert run.sink.asked.acquire(timeout=TIMEOUT_S)
        run.epoch += place in {0, 2}
        run.sink.steps.release()
    run.worker.finish()
    return run.sink.frames


def test_a_second_interrupt_does_not_show_the_face_again():
    """It comes while the frames of before the first are still being written as idle ones."""
    queued = [frame(index) for index in range(6)]
    written = interrupted_twice(queued)
    assert is_half(written[1], queued[1])
    for place in range(2, 6):
        assert np.array_equal(written[place].image, queued[place].idle), place
        assert not written[place].request.audio.any()


def test_each_interrupt_of_speech_fades():
    queued = [frame(0), frame(1), frame(2, epoch=1), frame(3, epoch=1), frame(4, epoch=1)]
    written = interrupted_twice(queued)
    assert is_half(written[1], queued[1])
    assert written[2] is queued[2]
    assert is_half(written[3], queued[3])
    assert np.array_equal(written[4].image, queued[4].idle)


def test_a_frame_that_has_no_idle_picture_stays():
    queued = [replace(frame(index), idle=None) for index in range(3)]
    assert all(ours is theirs for ours, theirs in zip(interrupted(queued), queued, strict=True))


def test_a_sink_that_cannot_be_opened_is_raised_and_not_told_besides():
    run = Run(Sink("open"))
    with pytest.raises(OutputError, match="open failed"):
        run.worker.open()
    run.put(frame(0))
    run.worker.finish()
    assert run.sink.calls == ["open", "abort"]
    assert run.failed == []


def test_a_sink_that_fails_is_ended_and_takes_nothing_any_more():
    """Whoever waits for room goes on; what was queued is forgotten."""
    run = Run(Sink("write", shut=True), capacity=2)
    run.worker.open()
    run.put(frame(0))
    assert run.sink.entered.wait(TIMEOUT_S)
    run.put(frame(1), frame(2))
    assert run.worker.waiting == 2
    waiting = threading.Thread(target=run.put, args=[frame(index) for index in range(3, 20)])
    waiting.start()
    run.sink.gate.set()
    waiting.join(TIMEOUT_S)
    assert not waiting.is_alive()
    run.worker.finish()
    assert run.sink.calls == ["open", "write", "abort"]
    assert run.sink.frames == []
    assert run.written == []
    assert isinstance(run.worker.failure, OutputError)
    assert run.failed == [(run.worker, run.worker.failure)]


def test_a_sink_that_cannot_be_finished_is_ended():
    run = Run(Sink("finish"))
    run.worker.open()
    run.put(frame(0))
    run.worker.finish()
    assert run.sink.calls == ["open", "write", "finish", "abort"]
    assert run.failed == [(run.worker, run.worker.failure)]
    assert str(run.worker.failure) == "finish failed."


def test_a_sink_without_a_frame_is_not_finished():
    run = Run(Sink())
    run.worker.open()
    run.worker.finish()
    assert run.sink.calls == ["open", "abort"]
    assert (run.failed, run.worker.failure) == ([], None)


def test_a_sink_that_was_never_opened_can_be_ended():
    run = Run(Sink())
    run.worker.abort()
    assert run.sink.calls == ["abort"]


def test_a_complete_sink_can_be_ended():
    run = Run(Sink())
    run.worker.open()
    run.put(frame(0))
    run.worker.finish()
    run.worker.abort()
    assert run.sink.calls == ["open", "write", "finish", "abort"]


def test_ending_forgets_what_is_queued():
    class Ends(Sink):
        def abort(self):
            super().abort()
            self.gate.set()

    run = Run(Ends(shut=True))
    run.worker.open()
    run.put(frame(0), frame(1), frame(2))
    assert run.sink.entered.wait(TIMEOUT_S)
    run.worker.abort()
    assert [one.request.index for one in run.sink.frames] == [0]
    assert "finish" not in run.sink.calls
    assert run.worker.failure is None


def test_a_sink_that_takes_nothing_is_ended_from_outside():
    """A pipe whose reader stands still: its write ends with an error when it is closed, and is no failure."""

    class Stuck(Sink):
        def abort(self):
            super().abort()
            self.gate.set()

    run = Run(Stuck("write", shut=True))
    run.worker.open()
    run.put(frame(0))
    assert run.sink.entered.wait(TIMEOUT_S)
    run.worker.abort()
    assert run.sink.calls[-1] == "abort"
    assert run.failed == []


def test_a_result_that_cannot_be_removed_is_said_and_hides_nothing(caplog):
    class Stubborn(Sink):
        def abort(self):
            raise OSError("busy")

    run = Run(Stubborn("write"))
    run.worker.open()
    run.put(frame(0))
    run.worker.finish()
    run.worker.abort()
    assert str(run.worker.failure) == "write failed."
    assert [record.getMessage() for record in caplog.records] == ["A result could not be removed: busy"] * 2


class Stuck(Sink):
    """Takes one frame and stands still in it until it is ended from outside."""

    def __init__(self):
        super().__init__(shut=True)

    def write(self, frame):
        super().write(frame)
        raise OutputError("the pipe is broken")

    def abort(self):
        super().abort()
        self.gate.set()


def test_what_a_slow_sink_has_no_room_for_holds_the_picture_before_and_keeps_its_sound(caplog):
    run = Run(Sink(shut=True), capacity=3, waits=False)
    run.worker.open()
    given = [frame(index) for index in range(20)]
    run.put(given[0])
    assert run.sink.entered.wait(TIMEOUT_S)
    run.put(*given[1:])
    run.sink.gate.set()
    run.worker.finish()
    written = run.sink.frames
    assert [one.request.index for one in written] == list(range(20))
    assert all(ours is theirs for ours, theirs in zip(written[:4], given[:4], strict=True))
    for ours, theirs in zip(written[4:], given[4:], strict=True):
        assert ours.fate is Fate.HELD
        assert ours.image is given[3].image
        assert ours.request.audio is theirs.request.audio
    assert (run.worker.held, run.worker.failure) == (16, None)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["viewer is 3 frames behind: pictures are left out there."]


def test_late_frames_that_come_at_once_are_not_the_fault_of_a_sink(caplog):
    """Each shows the picture before it: there is none to be left out."""
    run = Run(Sink(shut=True), capacity=3, waits=False)
    run.worker.open()
    spoken = frame(0)
    late = [replace(frame(index), image=spoken.image, fate=Fate.HELD) for index in range(1, 20)]
    run.put(spoken, *late)
    run.sink.gate.set()
    run.worker.finish()
    assert all(ours is theirs for ours, theirs in zip(run.sink.frames, [spoken, *late], strict=True))
    assert (run.worker.held, caplog.records) == (0, [])


def test_a_sink_that_catches_up_gets_its_own_pictures_again():
    run = Run(Stepped(), capacity=2, waits=False)
    run.worker.open()
    given = [frame(index) for index in range(9)]
    run.put(given[0])
    assert run.sink.asked.acquire(timeout=TIMEOUT_S)
    run.put(*given[1:6])
    for _ in range(5):
        run.sink.steps.release()
        assert run.sink.asked.acquire(timeout=TIMEOUT_S)
    run.put(*given[6:8])
    for _ in range(3):
        run.sink.steps.release()
    run.worker.finish()
    fates = [one.fate for one in run.sink.frames]
    assert fates == [Fate.SPEAKING] * 3 + [Fate.HELD] * 3 + [Fate.SPEAKING] * 2


@pytest.mark.parametrize("fps", [25, 5])
def test_a_sink_that_stands_still_is_closed_with_a_reason_and_never_waited_for(fps):
    """Whoever hands over frames does so in this thread: it would stand here for ever."""
    stream = replace(STREAM, fps=Fraction(fps))
    run = Run(Stuck(), capacity=4, waits=False, stream=stream)
    run.worker.open()
    run.put(frame(0))
    assert run.sink.entered.wait(TIMEOUT_S)
    bound = 4 + BEHIND_S * fps
    run.put(*(frame(index) for index in range(1, bound + 1)))
    assert run.worker.failure is None
    assert run.worker.waiting == bound
    run.put(*(frame(index) for index in range(bound + 1, bound + 30)))
    run.worker.finish()
    assert str(run.worker.failure) == "viewer is 10 s behind and was closed."
    assert run.worker.failure.hint is not None
    assert run.failed == [(run.worker, run.worker.failure)]
    assert "abort" in run.sink.calls
    assert "finish" not in run.sink.calls


def test_a_sink_that_stands_still_at_the_end_is_waited_for_no_longer_than_it_may_be_behind(monkeypatch):
    monkeypatch.setattr(sink_worker, "BEHIND_S", 0.05)
    run = Run(Stuck(), capacity=4, waits=False)
    run.worker.open()
    run.put(frame(0), frame(1))
    assert run.sink.entered.wait(TIMEOUT_S)
    run.worker.finish()
    assert str(run.worker.failure) == "viewer is 0.05 s behind and was closed."
    assert run.sink.calls[-1] == "abort"
