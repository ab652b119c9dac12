"""What fails in a stream: offline nothing is left, live the rest goes on and every cause is kept."""

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
from clocks import FakeClock
from runs import BATCH, LIVE, OFFLINE, PACED, TIMEOUT_S, Gated, Run, Sink, Source, make_engine

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.compositor import CpuPath
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.live.sink_worker import BEHIND_S

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


class Breaks(CpuPath):
    """An image path that fails with the batch after `batches` of them."""

    def __init__(self, failure, batches):
        self.failure, self.left = failure, batches

    def blend(self, faces, targets):
        if self.left == 0:
            raise self.failure
        self.left -= 1
        return super().blend(faces, targets)


# -- offline: all or nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["open", "write", "finish"])
@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_sink_that_fails_aborts_all(tiny_bundle, place, which):
    failure = OutputError(f"{place} failed.")
    sinks = [Sink(place, failure) if number == which else Sink() for number in range(2)]
    source = Source(20)
    with pytest.raises(OutputError) as caught:
        Run(tiny_bundle, source, sinks).run()
    assert caught.value is failure
    assert all(sink.calls[-1] == "abort" for sink in sinks)
    assert source.closed.is_set()


@pytest.mark.parametrize("blocks", [0, 10])
def test_a_source_that_fails_is_raised_and_leaves_nothing(tiny_bundle, blocks):
    failure, sink = InputError("The sound broke."), Sink()
    with pytest.raises(InputError) as caught:
        Run(tiny_bundle, Source(blocks, failure), [sink]).run()
    assert caught.value is failure
    assert sink.calls[-1] == "abort"
    assert "finish" not in sink.calls


@pytest.mark.parametrize("batches", [0, 2])
def test_an_engine_that_fails_ends_an_endless_source(tiny_bundle, batches):
    failure, sink = KeyError("latents"), Sink()
    engine = make_engine(tiny_bundle, images=Breaks(failure, batches))
    with pytest.raises(KeyError) as caught:
        Run(tiny_bundle, Source(0, endless=True), [sink], engine=engine).run()
    assert caught.value is failure
    assert sink.calls[-1] == "abort"
    assert "finish" not in sink.calls


def test_a_sink_that_cannot_be_aborted_does_not_hide_the_failure(tiny_bundle):
    class Stubborn(Sink):
        def abort(self):
            super().abort()
            raise OSError("busy")

    failure = OutputError("write failed.")
    sinks = [Stubborn(), Sink("write", failure)]
    with pytest.raises(OutputError) as caught:
        Run(tiny_bundle, Source(20), sinks).run()
    assert caught.value is failure
    assert [sink.calls[-1] for sink in sinks] == ["abort", "abort"]


def test_a_failure_ends_a_sink_that_takes_nothing(tiny_bundle):
    sink = Gated()

    class Late(Source):
        def __iter__(self):
            yield from super().__iter__()
            assert sink.entered.wait(TIMEOUT_S)
            raise InputError("the source broke")

    with pytest.raises(InputError, match="the source broke"):
        Run(tiny_bundle, Late(10), [sink]).run()
    assert sink.calls[-1] == "abort"


@pytest.mark.parametrize("policy", [OFFLINE, LIVE])
def test_a_dead_sink_is_noticed_while_the_source_is_silent(tiny_bundle, policy):
    failure = OutputError("The disk is full.")
    run = Run(tiny_bundle, Source(12, stays=True), [Sink("write", failure)], policy)
    if policy is OFFLINE:
        with pytest.raises(OutputError, match="disk is full"):
            run.run()
    else:
        assert run.run().failures == [failure]


def test_sound_shorter_than_a_frame_is_refused_and_leaves_nothing(tiny_bundle):
    for policy in (OFFLINE, LIVE):
        sink = Sink()
        with pytest.raises(InputError, match="shorter than one frame"):
            Run(tiny_bundle, Source(0), [sink], policy).run()
        assert sink.calls[0] == "open"
        assert set(sink.calls[1:]) == {"abort"}


# -- live: what fails is closed, the rest goes on -----------------------------------------------------------


@pytest.mark.parametrize("place", ["write", "finish"])
@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_sink_that_fails_is_closed_and_the_others_go_on(tiny_bundle, place, which):
    failure = OutputError(f"{place} failed.", "Look at the disk.")
    sinks = [Sink(place, failure) if number == which else Sink() for number in range(3)]
    sinks[which].name = "the broken one"
    run = Run(tiny_bundle, Source(20), sinks, LIVE)
    outcome = run.run()
    assert outcome.failures == [failure]
    assert (outcome.frames, outcome.interrupted) == (20, False)
    assert sinks[which].calls[-1] == "abort"
    for number, sink in enumerate(sinks):
        if number != which:
            assert sink.indices == list(range(20))
            assert sink.calls == ["open", "write", "finish"]
    assert run.snapshots[-1].failed == ("the broken one",)
    assert run.source.closed.is_set()


@pytest.mark.parametrize("which", [0, 1])
def test_a_sink_that_cannot_be_opened_ends_the_stream_before_it_begins(tiny_bundle, which):
    failure = OutputError("The camera is taken.")
    sinks = [Sink("open", failure) if number == which else Sink() for number in range(2)]
    source = Source(0, endless=True)
    with pytest.raises(OutputError) as caught:
        Run(tiny_bundle, source, sinks, LIVE).run()
    assert caught.value is failure
    assert all(sink.calls[-1] == "abort" for sink in sinks)
    assert source.given == 0


@pytest.mark.parametrize("count", [1, 3])
def test_a_stream_ends_with_its_last_sink_and_says_so(tiny_bundle, count):
    failures = [OutputError(f"The viewer {number} is gone.") for number in range(count)]
    source, sinks = Source(0, endless=True), [Sink("write", failure) for failure in failures]
    run = Run(tiny_bundle, source, sinks, LIVE)
    outcome = run.run()
    assert set(outcome.failures) == set(failures)
    assert outcome.frames > 0
    assert len(run.snapshots[-1].failed) == count
    assert all(sink.calls == ["open", "write", "abort"] for sink in sinks)
    assert source.closed.is_set()


@pytest.mark.parametrize("blocks", [1, 30])
def test_a_source_that_fails_leaves_what_was_made(tiny_bundle, blocks):
    failure, sinks = InputError("The microphone was unplugged."), [Sink(), Sink()]
    source = Source(blocks, failure)
    run = Run(tiny_bundle, source, sinks, LIVE)
    outcome = run.run()
    assert outcome.failures == [failure]
    assert not outcome.interrupted
    for sink in sinks:
        assert sink.indices == list(range(blocks))
        assert sink.calls[-1] == "finish"


def test_what_a_source_failed_with_says_more_than_that_its_sound_was_short(tiny_bundle):
    failure, sinks = InputError("The microphone is not there."), [Sink(), Sink()]
    with pytest.raises(InputError) as caught:
        Run(tiny_bundle, Source(0, failure), sinks, LIVE).run()
    assert caught.value is failure
    assert all(sink.calls[-1] == "abort" for sink in sinks)


def test_an_engine_that_fails_before_the_first_frame_is_raised(tiny_bundle):
    failure, sink = RuntimeError("out of memory"), Sink()
    engine = make_engine(tiny_bundle, images=Breaks(failure, 0))
    with pytest.raises(RuntimeError) as caught:
        Run(tiny_bundle, Source(0, endless=True), [sink], LIVE, engine=engine).run()
    assert caught.value is failure
    assert sink.calls[-1] == "abort"
    assert "finish" not in sink.calls


def test_a_crash_after_the_first_frame_keeps_its_cause_and_completes_what_was_made(tiny_bundle, caplog):
    failure, sinks = KeyError("latents"), [Sink(), Sink()]
    engine = make_engine(tiny_bundle, images=Breaks(failure, 2))
    with caplog.at_level(logging.DEBUG, "musetalk_cli"):
        outcome = Run(tiny_bundle, Source(0, endless=True), sinks, LIVE, engine=engine).run()
    assert outcome.failures == [failure]
    for sink in sinks:
        assert sink.indices == list(range(outcome.frames))
        assert sink.calls[-1] == "finish"
    assert BATCH <= outcome.frames <= 2 * BATCH
    assert "KeyError: 'latents'" in caplog.text
    told = [record for record in caplog.records if record.exc_info is not None]
    assert any(record.exc_info[1] is failure and record.exc_info[1].__traceback__ for record in told)


def test_what_was_finished_is_shown_though_there_was_no_room_for_it_when_the_engine_failed(tiny_bundle):
    """Five batches, and a sink that takes nothing until the sixth has failed."""
    failure, sink, failed = KeyError("latents"), Gated(), threading.Event()

    class Tells(Breaks):
        made = 0

        def blend(self, faces, targets):
            if self.left == 0:
                failed.set()
            else:
                self.made += len(targets)
            return super().blend(faces, targets)

    images = Tells(failure, 5)
    engine = make_engine(tiny_bundle, images=images)
    run = Run(tiny_bundle, Source(0, endless=True), [sink], LIVE, engine=engine)
    outcomes = []
    worker = threading.Thread(target=lambda: outcomes.append(run.run()))
    worker.start()
    assert failed.wait(TIMEOUT_S)
    sink.gate.set()
    worker.join(TIMEOUT_S)
    assert outcomes[0].failures == [failure]
    assert outcomes[0].frames == images.made > 4 * BATCH
    assert sink.indices == list(range(images.made))


def test_a_source_and_a_sink_that_fail_are_both_kept(tiny_bundle):
    source_failure, sink_failure = InputError("The line was cut."), OutputError("The disk is full.")
    sinks = [Sink("write", sink_failure), Sink()]
    outcome = Run(tiny_bundle, Source(20, source_failure), sinks, LIVE).run()
    assert set(outcome.failures) == {sink_failure, source_failure}
    assert sinks[1].indices == list(range(20))


def test_presentation_that_fails_is_no_silent_end(tiny_bundle):
    failure = RuntimeError("no clock any more")

    class Broken(FakeClock):
        waits = 0

        def wait(self, seconds, wake):
            self.waits += 1
            if self.waits == 5:
                raise failure
            return super().wait(seconds, wake)

    sink = Sink()
    outcome = Run(tiny_bundle, Source(20), [sink], PACED, clock=Broken()).run()
    assert outcome.failures == [failure]
    assert 0 < len(sink.frames) < 20
    assert sink.calls[-1] == "finish"


def test_a_second_ctrl_c_leaves_no_thread_that_waits_for_a_frame(tiny_bundle):
    class Ended(CpuPath):
        def __init__(self):
            self.batches = 0

        def blend(self, faces, targets):
            self.batches += 1
            if self.batches == 2:
                raise KeyboardInterrupt
            return super().blend(faces, targets)

    class Standing(FakeClock):
        def wait(self, seconds, wake):
            assert wake.wait(TIMEOUT_S), "nobody cut the wait short"
            return True

    sink, clock = Sink(), Standing(0.0)
    run = Run(
        tiny_bundle, Source(20, stays=True), [sink], PACED, clock=clock,
        engine=make_engine(tiny_bundle, images=Ended()),
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert sink.calls[-1] == "abort"
    assert "finish" not in sink.calls


# -- a sink that is too slow --------------------------------------------------------------------------------


def test_a_sink_that_stands_still_is_held_closed_with_a_reason_and_holds_up_nobody(tiny_bundle):
    seconds = BEHIND_S + 5
    stuck, other, source = Gated(name="stuck"), Sink(), Source(25 * seconds)
    source.noise *= 0  # silence: no frame costs model work
    run = Run(tiny_bundle, source, [stuck, other], PACED, options=SessionOptions(SilenceLevel()))
    outcome = run.run()
    assert other.indices == list(range(25 * seconds))
    assert other.calls[-1] == "finish"
    assert [str(failure) for failure in outcome.failures] == ["stuck is 10 s behind and was closed."]
    assert outcome.held > 0
    assert "finish" not in stuck.calls
    assert stuck.calls[-1] == "abort"


def test_a_watcher_that_stands_still_holds_up_nobody(tiny_bundle):
    entered, gate = threading.Event(), threading.Event()

    def watch(_):
        entered.set()
        gate.wait(TIMEOUT_S)

    class WaitsForIt(Sink):
        """Its last frame comes when the watcher stands still already."""

        def write(self, frame):
            if frame.request.index == 19:
                assert entered.wait(TIMEOUT_S)
            super().write(frame)

    sink = WaitsForIt()
    run = Run(tiny_bundle, Source(20), [sink], LIVE, watch=watch)
    try:
        outcome = run.run()
        assert outcome.frames == 20
        assert sink.calls[-1] == "finish"
    finally:
        gate.set()
        for thread in threading.enumerate():
            if thread.name == "watcher":
                thread.join(TIMEOUT_S)


def test_frames_of_a_stream_are_shared_and_not_written_into(tiny_bundle):
    sinks = [Sink(), Sink()]
    Run(tiny_bundle, Source(6), sinks, replace(LIVE)).run()
    for one, other in zip(*(sink.frames for sink in sinks), strict=True):
        assert one.image is other.image
        assert np.array_equal(one.request.audio, other.request.audio)
