"""A stream with the real engine on tiny networks: what goes in comes out, in order and in time."""

import json
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from runs import BATCH, CHUNK, FPS, FRAME, LIVE, OFFLINE, PACED, TIMEOUT_S, Gated, Run, Sink, Source

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.scheduler import BATCHES_FINISHED
from musetalk_cli.engine.session_options import SessionOptions
from musetalk_cli.live.policy import BATCHES_BUFFERED, FRAMES_QUEUED, UNHEARD_S
from musetalk_cli.measure.trace import Trace
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import AudioBlock, Fate

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


@pytest.mark.parametrize("policy", [OFFLINE, LIVE, PACED])
def test_every_sink_gets_every_frame_in_order(tiny_bundle, policy):
    source, sinks = Source(20), [Sink(), Sink()]
    run = Run(tiny_bundle, source, sinks, policy)
    outcome = run.run()
    for sink in sinks:
        assert sink.indices == list(range(20))
        assert sink.calls == ["open", "write", "finish"]
        sound = np.concatenate([frame.request.audio for frame in sink.frames])
        assert np.array_equal(sound, np.tile(source.noise, (20, 1)))
        assert [frame.pts for frame in sink.frames] == [Fraction(index, FPS) for index in range(20)]
    assert (outcome.frames, outcome.interrupted, outcome.failures) == (20, False, [])
    assert outcome.samples == 20 * FRAME
    assert run.snapshots[-1].frames == 20
    assert source.closed.is_set()


@pytest.mark.slow
def test_a_full_sink_that_is_waited_for_holds_the_source_back(tiny_bundle):
    source, sink = Source(200), Gated()
    run = Run(tiny_bundle, source, [sink])
    worker = threading.Thread(target=run.run)
    worker.start()
    assert sink.entered.wait(TIMEOUT_S)
    previous = -1
    while source.given != previous:
        previous = source.given
        worker.join(0.3)
    hop = int(CHUNK * FPS) + 1
    # In the sink, before it, in presentation's hands, before it, finished and requested in the engine, heard
    # for the next hops, between source and engine, in the source's hands.
    bound = (
        1
        + FRAMES_QUEUED
        + 1
        + BATCHES_BUFFERED * BATCH
        + (BATCHES_FINISHED + 1) * BATCH
        + 3 * hop
        + UNHEARD_S * FPS
        + 1
    )
    given = source.given
    sink.gate.set()
    worker.join(TIMEOUT_S)
    assert not worker.is_alive()
    assert given <= bound < 200
    assert sink.indices == list(range(200))


def test_frames_are_shown_when_they_are_due(tiny_bundle):
    """The sound is there before its time: only presentation moves the clock."""
    clock = FakeClock()
    sink = Sink(clock=clock)
    Run(tiny_bundle, Source(40), [sink], PACED, clock=clock).run()
    wait = float(CHUNK + Timeline(Fraction(FPS)).wait)
    due = [1000 + wait + number / FPS for number in range(40)]
    assert all(taken >= at - 1e-6 for taken, at in zip(sink.times, due, strict=True))
    assert clock.now() == pytest.approx(due[-1])


class Standing(FakeClock):
    """Time stands still: a wait ends when it is cut short, or never."""

    def __init__(self):
        super().__init__(0.0)
        self.waits = threading.Semaphore(0)
        self.cut_short = []

    def wait(self, seconds, wake):
        self.waits.release()
        self.cut_short.append(wake.wait(TIMEOUT_S))
        return self.cut_short[-1]


@pytest.mark.parametrize("without_room", [0, 2])
def test_a_frame_that_is_shown_wakes_the_loop_where_another_waits_for_its_room(tiny_bundle, without_room):
    """Else all streams would have a turn for each frame of each."""
    shown, wakes, held = threading.Event(), [], BATCHES_BUFFERED * BATCH

    class Counts(Sink):
        def write(self, frame):
            super().write(frame)
            if len(self.frames) == held:
                shown.set()

    run = Run(tiny_bundle, source := Source(0, stays=True), [Counts()], LIVE)
    run.session.hear(np.tile(source.noise, (held + without_room, 1)), run.clock.now())
    run.session.end_sound(run.clock.now())
    for _ in range(8):  # one after the other: no thread of the loop runs
        run.engine.step()
        run.stream.exchange()
    assert run.session.untaken == without_room
    run.loop.wake = lambda: wakes.append(None)
    run.stream.open()
    assert shown.wait(TIMEOUT_S)
    run.stream.abort(KeyError())
    assert len(wakes) == 2 + (held if without_room else 0), "twice for the end"


def test_a_stream_ends_when_its_last_frames_have_found_room(tiny_bundle):
    """Made, they wait with the session while the jitter buffer is full: closed before, it would lose them."""
    sink, held = Sink(), BATCHES_BUFFERED * BATCH
    run = Run(tiny_bundle, source := Source(0), [sink], LIVE)
    run.session.hear(np.tile(source.noise, (held + 2, 1)), run.clock.now())
    run.session.end_sound(run.clock.now())
    while not run.session.is_done:
        run.engine.step()
        run.stream.exchange()
    assert run.session.untaken == 2
    assert run.stream.exchange()
    run.run()
    assert sink.indices == list(range(held + 2))


def test_a_stop_cuts_short_the_wait_for_a_frames_time(tiny_bundle):
    clock, sink = Standing(), Sink()
    run = Run(tiny_bundle, Source(20, stays=True), [sink], PACED, clock=clock)

    def stop():
        assert clock.waits.acquire(timeout=TIMEOUT_S)
        run.stop.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    outcome = run.run()
    stopper.join()
    assert outcome.interrupted
    assert clock.cut_short == [True]
    assert sink.indices == list(range(outcome.frames))
    assert sink.calls[-1] == "finish"


@pytest.mark.parametrize("policy", [OFFLINE, LIVE])
def test_a_stop_completes_what_was_made(tiny_bundle, policy):
    class Fifth(Sink):
        def write(self, frame):
            super().write(frame)
            if len(self.frames) == 5:
                run.stop.set()

    sinks = [Fifth(), Sink()]
    run = Run(tiny_bundle, Source(0, endless=True), sinks, policy)
    outcome = run.run()
    assert (outcome.interrupted, outcome.failures) == (True, [])
    assert outcome.frames >= 5
    for sink in sinks:
        assert sink.indices == list(range(outcome.frames))
        assert sink.calls[-1] == "finish"


@pytest.mark.parametrize("policy", [OFFLINE, LIVE, PACED])
def test_a_stop_before_the_first_frame_leaves_nothing(tiny_bundle, policy):
    sink = Sink()
    run = Run(tiny_bundle, Source(0, stays=True), [sink], policy)
    run.stop.set()
    outcome = run.run()
    assert (outcome.frames, outcome.interrupted) == (0, True)
    assert sink.calls == ["open", "abort"]


class Interrupted(Source):
    """Says ten numbers, interrupts after the fifth was given, with the sixth on its way."""

    def __init__(self):
        super().__init__(10)
        self.run = None

    def __iter__(self):
        for number in range(1, 11):
            self.given += 1
            arrived = self.run.clock.now()
            if number == 6:
                self.run.clock.time += 1
                self.run.stream.interrupt()
            yield AudioBlock(np.full((FRAME, 1), number / 100, np.float32), arrived)
            self.run.clock.time += 0.01


@pytest.mark.parametrize("keeps_length", [True, False])
def test_an_interrupt_discards_what_was_on_its_way(tiny_bundle, keeps_length):
    """A recording that is played leaves its length as silence; sound that waits with its sender, none."""
    source, sink = Interrupted(), Sink()
    run = source.run = Run(tiny_bundle, source, [sink], replace(LIVE, keeps_length=keeps_length))
    outcome = run.run()
    assert source.discarded == 1
    said = [round(float(frame.request.audio.max()) * 100) for frame in sink.frames]
    assert said[-4:] == [7, 8, 9, 10]
    assert 6 not in said
    assert outcome.frames == len(said)
    if keeps_length:
        assert outcome.frames == 10
        assert said[5] == 0
    assert sink.frames[-1].fate is Fate.SPEAKING


class GatedSpeaker(Gated):
    """One that is heard, and told at once of what is to be heard no more."""

    delay_s, breaks = 0.0, 0

    def __init__(self):
        super().__init__()
        self.muted = []

    def mute(self, epoch):
        self.muted.append(epoch)


def test_what_is_made_and_not_shown_is_discarded_at_an_interrupt(tiny_bundle):
    clock, sink = FakeClock(), GatedSpeaker()
    run = Run(tiny_bundle, Source(40), [sink], LIVE, clock=clock)
    worker = threading.Thread(target=run.run)
    worker.start()
    assert sink.entered.wait(TIMEOUT_S)
    run.stream.interrupt()
    assert sink.muted == [1]
    sink.gate.set()
    worker.join(TIMEOUT_S)
    assert not worker.is_alive()
    assert sink.indices == list(range(40))
    old = [frame for frame in sink.frames[1:] if frame.request.epoch == 0]
    assert old
    assert {frame.fate for frame in old} <= {Fate.DISCARDED}


@pytest.mark.parametrize(("policy", "counted"), [(OFFLINE, 0), (LIVE, 3), (PACED, 3)])
def test_waiting_for_sound_that_comes_at_its_own_time_is_no_work(tiny_bundle, policy, counted):
    run = Run(tiny_bundle, Source(5), [Sink()], policy)
    run.stream.rest(1.0)
    run.stream.rest(2.0)
    assert run.run().waiting_s == pytest.approx(counted, abs=0.1)


def test_waiting_for_a_sink_that_is_not_paced_is_work(tiny_bundle):
    """A pipe into a file that is slow: the sound is there, and the device could go on."""
    run = Run(tiny_bundle, Source(20), [Sink()], LIVE)
    run.session.hear(np.tile(run.source.noise, (20, 1)), 1000.0)
    while not run.session.untaken:
        run.engine.step()
    run.stream.rest(5.0)
    assert run.run().waiting_s < 1


def test_moments_of_a_stream_stand_in_its_trace(tiny_bundle, tmp_path):
    """Silence and speech in turn, and an interrupt."""

    class Talk(Source):
        def __iter__(self):
            for number, block in enumerate(super().__iter__()):
                quiet = number % 40 < 20
                yield AudioBlock(block.samples * (0 if quiet else 1), block.arrived)
                if number == 2:
                    self.run.stream.interrupt()

    source = Talk(80)
    with Trace(tmp_path / "trace.json") as trace:
        run = source.run = Run(
            tiny_bundle, source, [Sink()], LIVE, options=SessionOptions(SilenceLevel()), trace=trace
        )
        run.run()
    events = json.loads((tmp_path / "trace.json").read_text())
    marks = [event["name"] for event in events if event["ph"] == "i"]
    assert marks.count("utterance") == 2
    assert marks.count("interrupt") == 1


def test_late_frames_are_marked_and_held(tiny_bundle, tmp_path):
    clock = FakeClock(5000.0)  # all of the sound arrived long ago
    options = SessionOptions(late_after_s=float(CHUNK))
    sink = Sink()
    with Trace(tmp_path / "trace.json") as trace:
        outcome = Run(tiny_bundle, Source(30), [sink], LIVE, clock=clock, options=options, trace=trace).run()
    assert outcome.dropped == sum(frame.fate is Fate.HELD for frame in sink.frames) > 0
    marks = [
        event["name"] for event in json.loads((tmp_path / "trace.json").read_text()) if event["ph"] == "i"
    ]
    assert "drop" in marks
