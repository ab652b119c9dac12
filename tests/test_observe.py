"""What is kept and told of a stream: its figures, its snapshots, and what goes to the trace."""

import json
import threading

import pytest
from clocks import FakeClock
from test_latencies import frame, say

from musetalk_cli.errors import OutputError
from musetalk_cli.live.observe import Depths, Observer
from musetalk_cli.measure.stages import Percentiles
from musetalk_cli.measure.trace import Trace
from musetalk_cli.types import Fate, Utterance

RATE = 16_000
CHUNK_S = 0.5
DEPTHS = Depths(1, 2, 3)


class Run:
    """An observer, and what it says how the run goes."""

    def __init__(self, *, begins_after=0.0, trace=None):
        self.clock = FakeClock()
        self.observer = Observer(self.clock, CHUNK_S, RATE, trace)
        self.clock.time += begins_after
        self.observer.start()

    def present(self, *frames, after=0.0, due=None):
        for one in frames:
            self.clock.time += after
            self.observer.presented(one, due)

    def snapshot(self):
        return self.observer.snapshot(DEPTHS)

    def end(self, held=0, lost=0):
        return self.observer.end(held=held, breaks=2, lost_samples=lost)


def test_frames_are_counted_by_their_fate():
    run = Run()
    kinds = [Fate.SPEAKING] * 5 + [Fate.FADING] * 2 + [Fate.IDLE] * 3 + [Fate.HELD] * 2
    kinds += [Fate.PASS_THROUGH, Fate.DISCARDED, Fate.SPEAKING]
    run.present(*(frame(index, index // 4, fate=fate) for index, fate in enumerate(kinds)))
    snapshot, outcome = run.snapshot(), run.end(held=4, lost=160)
    assert (outcome.frames, outcome.idle, outcome.dropped) == (15, 5, 2)
    assert (snapshot.frames, snapshot.idle, snapshot.dropped, snapshot.late) == (15, 5, 2, 0)
    assert (outcome.samples, outcome.held, outcome.lost_samples) == (15 * 640, 4, 160)


@pytest.mark.parametrize(("due", "late"), [(100.5, 2), (None, 0)])
def test_a_made_frame_is_late_after_its_time_and_never_where_it_has_none(due, late):
    run = Run()
    delays = [0.1, 0.499, 0.501, 3.0]
    run.present(*(frame(index, index, delay=delay) for index, delay in enumerate(delays)), due=due)
    run.present(frame(4, 4, delay=9.0, fate=Fate.HELD), frame(5, 5, delay=9.0, fate=Fate.IDLE), due=due)
    snapshot, outcome = run.snapshot(), run.end()
    assert snapshot.late == outcome.latencies.late == late


def test_the_rate_is_that_of_the_last_seconds():
    """Ten seconds at 25 fps, then at 10 fps: old frames stop counting after the snapshots that are kept."""
    run, rates = Run(), []
    for number in range(450):
        run.present(frame(number, 0), after=0.04 if number < 250 else 0.1)
        if number % 10 == 9:
            rates.append(run.snapshot().fps)
    assert rates[24] == pytest.approx(25, rel=0.01)
    assert 10 < rates[25] < 25
    assert rates[-1] == pytest.approx(10, rel=0.01)
    assert run.snapshot().elapsed_s == pytest.approx(30)


def test_the_first_snapshot_counts_from_the_start():
    run = Run(begins_after=10)
    run.present(*(frame(index, 0) for index in range(7)), after=0.04)
    snapshot = run.snapshot()
    assert snapshot.elapsed_s == pytest.approx(0.28)
    assert snapshot.fps == pytest.approx(25)


@pytest.mark.parametrize("fate", Fate)
def test_a_snapshot_says_what_waits_and_whether_it_speaks(fate):
    run = Run()
    assert not run.snapshot().speaking
    run.present(frame(0, 0, fate=fate), after=1)
    snapshot = run.snapshot()
    assert snapshot.speaking is (fate in {Fate.SPEAKING, Fate.FADING})
    assert snapshot.waiting == DEPTHS
    assert snapshot.failed == ()


def test_latencies_in_a_snapshot_are_in_milliseconds():
    run = Run()
    run.present(frame(0, 0, delay=0.1), frame(1, 0, delay=0.3), frame(2, 1, delay=0.2))
    spoken = frame(0, 0, arrived=1000.0, utterance=Utterance(0, 1000.1))
    run.observer.handed("window", spoken, 1000.7, watched=True)
    run.observer.handed("out.mp4", spoken, 1002.0, watched=False)
    so_far = run.snapshot()
    assert so_far.first_frame_ms.p50 == pytest.approx(150)
    assert so_far.last_frame_ms.p50 == pytest.approx(300)
    assert so_far.mouth_to_eye_ms.p50 == pytest.approx(700), "where somebody watches"
    assert so_far.response_ms.p50 == pytest.approx(600), "there too"
    assert run.end().latencies.last_frame.percentiles().p50 == pytest.approx(250), "with the last hop"


def test_work_is_what_was_not_waited():
    """Ten seconds for twenty seconds of sound, in seven of which there was nothing to do."""
    run = Run()
    run.present(*(frame(index, 0) for index in range(500)), after=0.02)
    run.observer.waited(3)
    run.observer.waited(4)
    snapshot, outcome = run.snapshot(), run.end()
    assert (outcome.wall_s, outcome.waiting_s) == (pytest.approx(10), 7)
    assert snapshot.real_time_factor == pytest.approx(3 / 20)


def test_a_run_without_a_frame_has_figures():
    snapshot = Run().snapshot()
    assert (snapshot.frames, snapshot.fps, snapshot.real_time_factor) == (0, 0, 0)
    assert snapshot.mouth_to_eye_ms == snapshot.response_ms == Percentiles(0, 0, 0)


def test_utterances_stalls_and_short_frames_are_counted():
    run = Run()
    spoken = [frame(n, 0, utterance=Utterance(n // 4, 0.0), short=n % 4 == 3) for n in range(12)]
    silent = frame(12, 0, fate=Fate.IDLE)
    late = frame(13, 0, fate=Fate.HELD, utterance=Utterance(3, 0.0), short=True)
    run.present(*spoken, silent, late)
    for one in (spoken[4], silent, late):
        run.observer.stalled(one)
    snapshot, outcome = run.snapshot(), run.end()
    assert (snapshot.utterances, snapshot.stalls) == (4, 2)
    assert (outcome.utterances, outcome.stalls, outcome.short) == (4, 2, 3)


def test_failures_are_kept_in_order_and_said_once(caplog):
    run, errors = Run(), [OutputError("The disk is full.", "Make room."), OSError("gone")]
    run.observer.failed("out.mp4", errors[0])
    run.observer.failed("viewer", errors[1])
    assert run.snapshot().failed == ("out.mp4", "viewer")
    assert run.end().failures == errors
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "out.mp4 failed and was closed: The disk is full.",
        "viewer failed and was closed: OSError: gone",
    ]


def test_a_failure_keeps_its_kind_and_its_traceback(caplog):
    def crash():
        raise KeyError("latents")

    run = Run()
    with pytest.raises(KeyError) as caught:
        crash()
    with caplog.at_level("DEBUG", "musetalk_cli"):
        run.observer.failed("the engine", caught.value)
    assert run.end().failures == [caught.value]
    warning = next(record for record in caplog.records if record.levelname == "WARNING")
    assert "KeyError" in warning.getMessage()
    assert "in crash" in caplog.text
    assert "Traceback" in caplog.text


def events(path):
    return json.loads(path.read_text())


def test_depths_go_to_the_trace(tmp_path):
    with Trace(tmp_path / "trace.json") as trace:
        run = Run(trace=trace)
        run.snapshot()
        run.present(frame(0, 0), after=1)
        run.snapshot()
    counters = [
        (event["name"], *event["args"].values())
        for event in events(tmp_path / "trace.json")
        if event["ph"] == "C"
    ]
    assert counters == [("sound", 1), ("requests", 2), ("frames", 3)] * 2


def test_moments_go_to_the_trace_once_each_and_at_their_time(tmp_path):
    talk, fade, idle = Fate.SPEAKING, Fate.FADING, Fate.IDLE
    fates = [
        idle,
        fade,
        talk,
        talk,
        fade,
        idle,
        idle,
        talk,
        Fate.HELD,
        Fate.HELD,
        talk,
        Fate.HELD,
        idle,
        talk,
    ]
    with Trace(tmp_path / "trace.json") as trace:
        run = Run(trace=trace)
        for number, fate in enumerate(fates):
            utterance = None if fate is idle else Utterance(fates[:number].count(idle), 1000.0)
            run.present(frame(number, 0, fate=fate, utterance=utterance), after=1)
        run.observer.interrupted()
        run.observer.stalled(frame(14, 0))
        run.observer.failed("viewer", OSError("gone"))
    marks = [
        (event["name"], event["ts"] / 1e6 - 1000)
        for event in events(tmp_path / "trace.json")
        if event["ph"] == "i"
    ]
    told = [("utterance", 2), ("utterance", 8), ("drop", 9), ("drop", 12), ("utterance", 14)]
    assert marks == [*told, ("interrupt", 14), ("stall", 14), ("viewer failed", 14)]


def test_the_response_to_each_utterance_is_a_stretch_of_the_trace_for_each_sink(tmp_path):
    with Trace(tmp_path / "trace.json") as trace:
        run = Run(trace=trace)
        for number in range(2):
            frames = (Fate.FADING, 100.7 + number), (Fate.SPEAKING, 101.9)
            say(run.observer, "window", number, 100.0 + number, *frames)
        say(run.observer, "out.mp4", 0, 100.0, (Fate.SPEAKING, 103.0), watched=False)
    written = events(tmp_path / "trace.json")
    tracks = {event["tid"]: event["args"]["name"] for event in written if event["name"] == "thread_name"}
    stretches = [
        (tracks[event["tid"]], event["name"], event["ts"] / 1e6, event["dur"] / 1e6)
        for event in written
        if event["ph"] == "X"
    ]
    assert stretches == [
        ("response of window", "response", pytest.approx(100), pytest.approx(0.7)),
        ("response of window", "response", pytest.approx(101), pytest.approx(0.7)),
        ("response of out.mp4", "response", pytest.approx(100), pytest.approx(3)),
    ]


def test_threads_may_tell_at_once():
    """Sinks hand over and fail while frames are presented and somebody watches; nothing is lost."""
    run = Run()

    def hand_over(name):
        for index in range(2000):
            run.observer.handed(name, frame(index, 0), 1.0, watched=index % 2 == 0)

    def fail():
        for number in range(200):
            run.observer.failed("sink", OSError(str(number)))

    def watch():
        for _ in range(200):
            run.snapshot()

    threads = [
        threading.Thread(target=hand_over, args=("one",)),
        threading.Thread(target=hand_over, args=("other",)),
        threading.Thread(target=fail),
        threading.Thread(target=watch),
    ]
    for thread in threads:
        thread.start()
    run.present(*(frame(index, index // 12) for index in range(2000)), after=0.04)
    for thread in threads:
        thread.join()
    outcome = run.end()
    assert [figures.count for figures in outcome.latencies.mouth_to_eye.values()] == [2000, 2000]
    assert outcome.frames == 2000
    assert len(outcome.failures) == len(run.snapshot().failed) == 200
