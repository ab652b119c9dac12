"""A stream that nobody can repeat: what fails is closed, and the rest goes on."""

import threading
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from runs import STREAM, Engine, Sink, Source

from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.live.jitter_buffer import PlayoutSchedule
from musetalk_cli.live.observe import Observer
from musetalk_cli.live.stream import Pipeline
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock

TIMEOUT_S = 30


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Run:
    """A live pipeline and what it says."""

    def __init__(self, source, sinks, *, engine=None, playout=None, clock=None):
        self.clock = clock or FakeClock()
        self.engine = engine or Engine(self.clock)
        self.session = self.engine.session
        self.source, self.sinks, self.snapshots = source, sinks, []
        self.stop = threading.Event()
        observer = Observer(self.clock, 0.5, STREAM.sample_rate)
        self.pipeline = Pipeline(
            self.engine, self.session, source, sinks, self.clock, observer, playout=playout
        )

    def run(self):
        return self.pipeline.run(self.stop, self.snapshots.append)


class Waiting(Source):
    """Gives its pieces and then waits until it is closed, as a microphone does in a quiet room."""

    live = True

    def __iter__(self):
        yield from super().__iter__()
        assert self.closed.wait(TIMEOUT_S), "nobody closed the source"


@pytest.mark.parametrize("place", ["write", "finish"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_sink_that_fails_is_closed_and_the_others_go_on(place, which):
    failure = OutputError(f"{place} failed.")
    sinks = [Sink(place, failure) if number == which else Sink() for number in range(3)]
    sinks[which].name = "the broken one"
    run = Run(Source(50), sinks)
    outcome = run.run()
    assert outcome.failures == [failure]
    assert (outcome.frames, outcome.interrupted) == (50, False)
    assert sinks[which].calls[-1] == "abort"
    for number, sink in enumerate(sinks):
        if number != which:
            assert sink.frames == list(range(50))
            assert sink.calls == ["open", "write", "finish"]
    assert run.snapshots[-1].failed == ("the broken one",)
    assert run.source.closed.is_set()


@pytest.mark.parametrize("which", [0, 1])
def test_a_sink_that_cannot_be_opened_ends_the_run_before_it_begins(which):
    failure = OutputError("The camera is taken.")
    sinks = [Sink("open", failure) if number == which else Sink() for number in range(2)]
    source = Source(0, endless=True)
    with pytest.raises(OutputError) as caught:
        Run(source, sinks).run()
    assert caught.value is failure
    assert all(sink.calls[-1] == "abort" for sink in sinks)
    assert all(not sink.frames for sink in sinks)
    assert source.given == 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_run_ends_with_its_last_sink_and_says_so(count):
    failures = [OutputError(f"The viewer {number} is gone.") for number in range(count)]
    source, sinks = Source(0, endless=True), [Sink("write", failure) for failure in failures]
    run = Run(source, sinks)
    outcome = run.run()
    assert set(outcome.failures) == set(failures)
    assert len(outcome.failures) == count
    assert outcome.frames > 0
    assert len(run.snapshots[-1].failed) == count
    assert all(sink.calls == ["open", "write", "abort"] for sink in sinks)
    assert source.closed.is_set()


def test_a_run_ends_with_its_last_sink_also_while_the_source_is_silent():
    failure = OutputError("The viewer is gone.")
    outcome = Run(Waiting(3), [Sink("write", failure)]).run()
    assert outcome.failures == [failure]


@pytest.mark.parametrize("pieces", [1, 2, 3, 30])
def test_a_source_that_fails_leaves_what_was_made(pieces):
    failure, sinks = InputError("The microphone was unplugged."), [Sink(), Sink()]
    source = Source(pieces, failure)
    outcome = Run(source, sinks).run()
    assert outcome.failures == [failure]
    assert not outcome.interrupted
    for sink in sinks:
        assert sink.frames == list(range(pieces))
        assert sink.calls[-1] == "finish"
    assert source.closed.is_set()


def test_a_source_that_fails_before_the_first_frame_is_raised():
    failure, sinks = InputError("The microphone is not there."), [Sink(), Sink()]
    with pytest.raises(InputError) as caught:
        Run(Source(0, failure), sinks).run()
    assert caught.value is failure
    assert all(sink.calls[-1] == "abort" for sink in sinks)
    assert all("finish" not in sink.calls for sink in sinks)


def test_what_a_source_failed_with_says_more_than_that_its_sound_was_short():
    failure, sink = InputError("The microphone was unplugged."), Sink()
    engine = Engine(FakeClock())

    def too_short(now):
        raise InputError("The sound is shorter than one frame.")

    engine.session.finish = too_short
    with pytest.raises(InputError) as caught:
        Run(Source(0, failure), [sink], engine=engine).run()
    assert caught.value is failure


@pytest.mark.parametrize("made", [0, 1, 3])
def test_an_engine_that_fails_leaves_what_was_made_or_is_raised(made):
    failure, sinks, clock = RuntimeError("out of memory"), [Sink(), Sink()], FakeClock()
    run = Run(Source(0, endless=True), sinks, engine=Engine(clock, failure, fails_after=made), clock=clock)
    if made:
        assert run.run().failures == [failure]
        assert all(sink.frames == list(range(made)) for sink in sinks)
        assert all(sink.calls[-1] == "finish" for sink in sinks)
    else:
        with pytest.raises(RuntimeError) as caught:
            run.run()
        assert caught.value is failure
        assert all(sink.calls[-1] == "abort" for sink in sinks)
        assert all("finish" not in sink.calls for sink in sinks)


def test_a_source_and_a_sink_that_fail_are_both_kept():
    source_failure, sink_failure = InputError("The line was cut."), OutputError("The disk is full.")
    sinks = [Sink("write", sink_failure), Sink()]
    outcome = Run(Source(20, source_failure), sinks).run()
    assert outcome.failures == [sink_failure, source_failure]
    assert sinks[1].frames == list(range(20))


@pytest.mark.parametrize("frames", [1, 20])
def test_presentation_that_fails_is_no_silent_end(frames):
    """It may fail when everything was made and only waits to be shown."""
    failure = RuntimeError("no terminal any more")

    class Broken(PlayoutSchedule):
        def due(self, frame):
            if frame.request.index == frames:
                raise failure
            return super().due(frame)

    sink = Sink()
    outcome = Run(Source(frames + 3), [sink], playout=Broken(Timeline(STREAM.fps), Fraction(1, 2))).run()
    assert outcome.failures == [failure]
    assert sink.frames == list(range(frames))
    assert sink.calls[-1] == "finish"


def test_a_stop_completes_what_was_made():
    class Fifth(Sink):
        def write(self, frame):
            super().write(frame)
            if len(self.frames) == 5:
                run.stop.set()

    sinks = [Fifth(), Sink()]
    run = Run(Source(0, endless=True), sinks)
    outcome = run.run()
    assert outcome.interrupted
    assert outcome.failures == []
    assert outcome.frames >= 5
    for sink in sinks:
        assert sink.frames == [number % 256 for number in range(outcome.frames)]
        assert sink.calls[-1] == "finish"


def test_a_stop_before_the_first_frame_leaves_nothing():
    sink = Sink()
    run = Run(Waiting(0), [sink])
    run.stop.set()
    outcome = run.run()
    assert (outcome.frames, outcome.interrupted) == (0, True)
    assert sink.calls == ["open", "abort"]


class Interrupted(Source):
    """1; while that is computed 2, 3, 4, 5, an interrupt, 6, which was on its way, and 7, 8, 9, 10."""

    def __init__(self, *, patient, live=True):
        super().__init__(10)
        self.patient = patient
        self.live = live
        self.busy, self.go_on = threading.Event(), threading.Event()
        self.discarded_after = []
        self.run = None

    def __iter__(self):
        for number in range(1, 11):
            if number == 2:
                assert self.busy.wait(TIMEOUT_S)
            self.given += 1
            arrived = self.run.clock.now()
            if number == 6:
                self.run.clock.time += 1
                self.run.session.interrupt()
            yield AudioBlock(np.full((640, 1), number, np.float32), arrived)
        self.go_on.set()

    def discard(self):
        super().discard()
        self.discarded_after.append(self.given)


def interrupted(patient, *, live=True):
    source, clock = Interrupted(patient=patient, live=live), FakeClock()

    class Busy(Engine):
        def step(self):
            if self.session.waiting:
                source.busy.set()
                assert source.go_on.wait(TIMEOUT_S)
            return super().step()

    sink = Sink()
    run = source.run = Run(source, [sink], engine=Busy(clock), clock=clock)
    outcome = run.run()
    assert outcome.failures == []
    return run, sink


def test_an_interrupt_drops_old_sound_that_would_wait():
    run, sink = interrupted(patient=True)
    assert run.session.heard == [1, 7, 8, 9, 10]
    assert sink.frames == list(range(5))


def test_an_interrupt_silences_old_sound_of_a_source_that_goes_on():
    """It keeps its length: time goes on."""
    run, sink = interrupted(patient=False)
    assert run.session.heard == [1, 0, 0, 0, 0, 0, 7, 8, 9, 10]
    assert sink.frames == list(range(10))


def test_an_interrupt_takes_nothing_of_a_recording_that_waits():
    """What was read of it and is not spoken yet is still to come."""
    run, sink = interrupted(patient=True, live=False)
    assert run.session.heard == list(range(1, 11))
    assert sink.frames == list(range(10))


@pytest.mark.parametrize("patient", [True, False])
def test_an_interrupt_discards_what_the_source_holds(patient):
    """Once, and before any more of its sound is asked for."""
    run, _ = interrupted(patient)
    assert run.source.discarded_after == [6]


def test_without_an_interrupt_nothing_is_discarded():
    source = Source(20)
    Run(source, [Sink()]).run()
    assert source.discarded == 0


class Timed(Sink):
    """Notes when it gets each frame."""

    def __init__(self, clock):
        super().__init__()
        self.clock, self.taken = clock, []

    def write(self, frame):
        self.taken.append((frame, self.clock.now()))
        super().write(frame)


class Paced(Source):
    """A piece each 40 ms of a clock that only presentation moves: the sound is there before its time."""

    live = True

    def __iter__(self):
        for number in range(self.pieces):
            self.given += 1
            yield AudioBlock(np.zeros((640, 1), np.float32), 1000 + number * 0.5)


def test_frames_are_shown_when_they_are_due():
    """Each of the stand-in's frames is a chunk of its own, so that chunks run far ahead of the frames."""
    clock = FakeClock()
    sink = Timed(clock)
    run = Run(Paced(40), [sink], clock=clock, playout=PlayoutSchedule(Timeline(STREAM.fps), Fraction(1, 2)))
    outcome = run.run()
    due = PlayoutSchedule(Timeline(STREAM.fps), Fraction(1, 2))
    expected = [due.due(frame) for frame, _ in sink.taken]
    assert len(expected) == outcome.frames == 40
    assert expected[-1] > 1000 + 39 * 0.04
    for (_, taken), earliest in zip(sink.taken, expected, strict=True):
        assert taken >= earliest - 1e-9
    assert clock.now() == pytest.approx(expected[-1])


class Slow(Engine):
    """Needs a second for each batch: two chunks of the stream."""

    def step(self):
        self.clock.time += 1.0
        return super().step()


def test_nothing_is_late_where_no_frame_has_its_time():
    """A pipe that is read faster than it is spoken, into a file: every frame waits, and nobody for it."""
    clock = FakeClock()
    outcome = Run(Source(60), [Sink()], engine=Slow(clock), clock=clock).run()
    assert outcome.frames == 60
    assert outcome.latencies.last_frame.percentiles().p50 > 500, "longer than a chunk"
    assert outcome.latencies.late == 0


@pytest.mark.parametrize("engine", [Engine, Slow])
def test_a_frame_is_late_that_was_made_after_it_was_due(engine):
    clock, times = FakeClock(), []

    class Noting(PlayoutSchedule):
        def due(self, frame):
            times.append((frame.composited, super().due(frame)))
            return times[-1][1]

    playout = Noting(Timeline(STREAM.fps), Fraction(1, 2))
    outcome = Run(Paced(60), [Sink()], engine=engine(clock), clock=clock, playout=playout).run()
    late = sum(composited > due for composited, due in times)
    assert outcome.latencies.late == late
    assert (late > 0) is (engine is Slow)


class Standing(FakeClock):
    """Time stands still: a wait ends when it is cut short, or never."""

    def __init__(self):
        super().__init__()
        self.waits = threading.Semaphore(0)
        self.cut_short = []

    def wait(self, seconds, wake):
        self.waits.release()
        self.cut_short.append(wake.wait(TIMEOUT_S))
        return self.cut_short[-1]


def test_a_stop_cuts_short_the_wait_for_a_frames_time():
    clock, sink = Standing(), Sink()

    class Early(PlayoutSchedule):
        def due(self, frame):
            return clock.now() + 3600

    run = Run(Waiting(5), [sink], clock=clock, playout=Early(Timeline(STREAM.fps), Fraction(1, 2)))

    def stop():
        assert clock.waits.acquire(timeout=TIMEOUT_S)
        run.stop.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    outcome = run.run()
    stopper.join()
    assert outcome.interrupted
    assert clock.cut_short == [True]
    assert sink.frames == list(range(outcome.frames))
    assert sink.calls[-1] == "finish"


def test_a_failure_before_the_first_frame_cuts_it_short_too():
    """A run that is ended from outside, as by a second Ctrl-C, leaves no thread that waits for a frame."""
    clock, sink = Standing(), Sink()

    class Early(PlayoutSchedule):
        def due(self, frame):
            return clock.now() + 3600

    class Ended(Engine):
        def step(self):
            if self.session.made:
                assert clock.waits.acquire(timeout=TIMEOUT_S)
                raise KeyboardInterrupt
            return super().step()

    run = Run(
        Waiting(5), [sink], engine=Ended(clock), clock=clock,
        playout=Early(Timeline(STREAM.fps), Fraction(1, 2)),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert clock.cut_short == [True]
    assert sink.calls[-1] == "abort"
    assert "finish" not in sink.calls


@pytest.mark.parametrize("leaves_out", [True, False])
def test_the_sound_ends_once_also_where_much_of_it_waits(leaves_out):
    """The engine needs many steps for what came at once."""
    clock, gate = FakeClock(), threading.Event()

    class AtOnce(Source):
        live = True

        def __iter__(self):
            yield from super().__iter__()
            gate.set()

    class Later(Engine):
        def step(self):
            if self.session.waiting:
                assert gate.wait(TIMEOUT_S)
            return super().step()

    engine, sink = Later(clock), Sink()
    engine.session.leaves_out = leaves_out
    outcome = Run(AtOnce(40), [sink], engine=engine, clock=clock).run()
    assert outcome.failures == []
    assert sink.frames == list(range(40))


@pytest.mark.parametrize("live", [True, False])
def test_waiting_for_a_live_source_is_no_work(live):
    """Sound comes a second after it is asked for: a file's decoder is work, a microphone's silence is not."""
    clock = FakeClock()

    class Arrivals:
        """A hand-off whose pieces each come after a second."""

        def __init__(self, pieces):
            self.pieces = pieces

        def get(self, timeout):
            if not self.pieces:
                raise HandoffClosed
            clock.time += 1
            self.pieces -= 1
            return 0, AudioBlock(np.zeros((640, 1), np.float32), clock.now())

        def close(self, error=None):
            pass

        def __len__(self):
            return 0

    source = Source(0)
    source.live = live
    run = Run(source, [Sink()], clock=clock)
    run.pipeline._arrivals = Arrivals(20)
    outcome = run.run()
    assert outcome.wall_s == pytest.approx(20)
    assert outcome.waiting_s == pytest.approx(20 if live else 0)
