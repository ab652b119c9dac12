import threading

import pytest
from clocks import FakeClock
from runs import BATCH, STREAM, Engine, Sink, Source

from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.live.observe import Observer
from musetalk_cli.live.stream import ARRIVALS, FRAMES_PER_BATCH_WAITING, SINK_FRAMES, Pipeline

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def pipeline(source, sinks, failure=None, *, offline=True):
    clock = FakeClock()
    engine = Engine(clock, failure)
    observer = Observer(clock, 0.5, STREAM.sample_rate)
    return Pipeline(engine, engine.session, source, sinks, clock, observer, offline=offline)


def test_every_sink_gets_every_frame_in_order():
    source, sinks = Source(20), [Sink(), Sink()]
    snapshots = []
    outcome = pipeline(source, sinks).run(threading.Event(), snapshots.append)
    for sink in sinks:
        assert sink.frames == list(range(20))
        assert sink.calls == ["open", "write", "finish"]
    assert (outcome.frames, outcome.interrupted) == (20, False)
    assert outcome.samples == 20 * 0.04 * outcome.sample_rate
    assert snapshots[-1].frames == 20
    assert source.closed.is_set()


@pytest.mark.parametrize("place", ["open", "write", "finish"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_sink_that_fails_aborts_all(place, which):
    failure = OutputError(f"{place} failed.")
    sinks = [Sink(place, failure) if number == which else Sink() for number in range(2)]
    source = Source(20)
    with pytest.raises(OutputError) as caught:
        pipeline(source, sinks).run(threading.Event())
    assert caught.value is failure
    assert all(sink.calls[-1] == "abort" for sink in sinks)
    assert source.closed.is_set()


@pytest.mark.parametrize("pieces", [0, 10])
def test_a_source_that_fails_is_raised_and_leaves_nothing(pieces):
    failure, sink = InputError("The sound broke."), Sink()
    with pytest.raises(InputError) as caught:
        pipeline(Source(pieces, failure), [sink]).run(threading.Event())
    assert caught.value is failure
    assert sink.calls[-1] == "abort"
    assert "finish" not in sink.calls


def test_an_engine_that_fails_ends_an_endless_source():
    failure, sink = RuntimeError("out of memory"), Sink()
    with pytest.raises(RuntimeError) as caught:
        pipeline(Source(0, endless=True), [sink], failure).run(threading.Event())
    assert caught.value is failure
    assert sink.calls[-1] == "abort"


def test_a_sink_that_cannot_be_aborted_does_not_hide_the_failure():
    class Stubborn(Sink):
        def abort(self):
            super().abort()
            raise OSError("busy")

    failure = OutputError("write failed.")
    sinks = [Stubborn(), Sink("write", failure)]
    with pytest.raises(OutputError) as caught:
        pipeline(Source(20), sinks).run(threading.Event())
    assert caught.value is failure
    assert [sink.calls[-1] for sink in sinks] == ["abort", "abort"]


def test_an_interrupt_completes_what_was_made():
    stop = threading.Event()

    class Fifth(Sink):
        def write(self, frame):
            super().write(frame)
            if len(self.frames) == 5:
                stop.set()

    sink = Fifth()
    outcome = pipeline(Source(0, endless=True), [sink]).run(stop)
    assert outcome.interrupted
    assert outcome.frames == len(sink.frames) >= 5
    assert sink.calls[-1] == "finish"


def test_an_interrupt_before_the_first_frame_leaves_nothing():
    stop, sink = threading.Event(), Sink()
    stop.set()
    outcome = pipeline(Source(0, endless=True), [sink]).run(stop)
    assert (outcome.frames, outcome.interrupted) == (0, True)
    assert sink.calls == ["open", "abort"]


def test_a_slow_sink_holds_the_source_back():
    gate, reached = threading.Event(), threading.Event()

    class Slow(Sink):
        def write(self, frame):
            reached.set()
            gate.wait(10)
            super().write(frame)

    source, sink = Source(1000), Slow()
    run = pipeline(source, [sink])
    worker = threading.Thread(target=run.run, args=(threading.Event(),))
    worker.start()
    assert reached.wait(10)
    previous = -1
    while source.given != previous:
        previous = source.given
        worker.join(0.1)
    # In the sink, before it, in presentation's hands, before it, in the engine, between source and engine, in
    # the source's hands.
    bound = 1 + SINK_FRAMES + 1 + FRAMES_PER_BATCH_WAITING * BATCH + 1 + ARRIVALS + 1
    assert source.given <= bound
    gate.set()
    worker.join(10)
    assert not worker.is_alive()
    assert sink.frames == [n % 256 for n in range(1000)]


class StuckSink(Sink):
    """Takes one frame and waits in the next until it is aborted, as a pipe does whose reader stands still."""

    def __init__(self):
        super().__init__()
        self.aborted = threading.Event()
        self.entered = threading.Event()

    def write(self, frame):
        self.entered.set()
        assert self.aborted.wait(30), "nobody aborted the sink"
        raise OutputError("the pipe is broken")

    def abort(self):
        self.aborted.set()


def test_a_failure_ends_a_sink_that_takes_nothing():
    sink = StuckSink()

    class Late(Source):
        def __iter__(self):
            yield from super().__iter__()
            assert sink.entered.wait(30)
            raise InputError("the source broke")

    with pytest.raises(InputError, match="the source broke"):
        pipeline(Late(1), [sink]).run(threading.Event())
    assert sink.aborted.is_set()


def test_a_dead_sink_is_noticed_while_a_live_source_is_silent():
    sink = Sink("write", OutputError("the disk is full"))

    class Silent(Source):
        live = True

        def __iter__(self):
            yield from super().__iter__()
            assert self.closed.wait(30), "nobody closed the source"

    with pytest.raises(OutputError, match="the disk is full"):
        pipeline(Silent(3), [sink]).run(threading.Event())
