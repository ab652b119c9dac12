import json
import threading
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.errors import OutputError
from musetalk_cli.live.latencies import Latencies
from musetalk_cli.live.observe import Depths, Observer
from musetalk_cli.measure.stages import Figures, Percentiles
from musetalk_cli.measure.trace import Trace
from musetalk_cli.types import Fate, Frame, FrameRequest, Utterance

RATE = 16_000
CHUNK_S = 0.5
DEPTHS = Depths(1, 2, 3)
PICTURE = np.zeros((1, 1, 3), np.uint8)


def frame(index, hop, *, delay=0.0, ready=100.0, arrived=0.0, fate=Fate.SPEAKING, **known):
    request = FrameRequest(index, None, np.zeros((640, 1), np.float32), arrived, ready, hop, **known)
    return Frame(request, PICTURE, Fraction(index, 25), ready + delay, fate)


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


def spread(delays):
    """What figures of these delays say."""
    figures = Figures()
    for delay in delays:
        figures.append(delay)
    return figures.count, figures.percentiles(), figures.largest


def told(figures):
    return figures.count, figures.percentiles(), figures.largest


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(list(Fate)), st.integers(0, 1000)),
        min_size=1,
        max_size=60,
    )
)
def test_latencies_are_those_of_made_frames_one_first_and_one_last_a_chunk(steps):
    """Beside a table by chunk, whatever a chunk holds; a chunk without a made frame has no figures."""
    latencies, table, hop, late = Latencies(CHUNK_S), {}, 0, 0
    for index, (further, fate, ms) in enumerate(steps):
        hop += further
        latencies.composited(frame(index, hop, delay=ms / 1000, fate=fate, ready=0.0), due=0.5)
        if fate in {Fate.SPEAKING, Fate.FADING}:
            table.setdefault(hop, []).append(ms / 1000)
            late += ms > 500
    latencies.end_hop()
    latencies.end_hop()
    assert told(latencies.first_frame) == spread(delays[0] for delays in table.values())
    assert told(latencies.last_frame) == spread(delays[-1] for delays in table.values())
    assert latencies.late == late


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
    run.observer.handed("window", frame(0, 0, arrived=1000.0), 1000.7, watched=True)
    so_far = run.snapshot()
    assert so_far.first_frame_ms.p50 == pytest.approx(150)
    assert so_far.last_frame_ms.p50 == pytest.approx(300)
    assert so_far.mouth_to_eye_ms.p50 == pytest.approx(700)
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


def hand(run, sink, delays, *, watched):
    for index, delay in enumerate(delays):
        run.observer.handed(sink, frame(index, 0, arrived=5.0), 5.0 + delay, watched=watched)


def test_mouth_to_eye_is_kept_for_each_sink():
    run = Run()
    hand(run, "out.mp4", [2.0, 3.0], watched=False)
    hand(run, "window", [0.1, 0.1, 0.1], watched=True)
    eye = run.end().latencies.mouth_to_eye
    assert {name: figures.count for name, figures in eye.items()} == {"out.mp4": 2, "window": 3}
    assert eye["out.mp4"].percentiles().p50 == pytest.approx(2500)
    assert eye["window"].percentiles().p50 == pytest.approx(100)


@pytest.mark.parametrize(
    ("sinks", "headline"),
    [
        ([("out.mp4", 2.0, False), ("window", 0.12, True)], 120),
        ([("window", 0.12, True), ("out.mp4", 2.0, False)], 120),
        ([("rtmp", 0.9, True), ("window", 0.12, True), ("out.mp4", 2.0, False)], 900),
        ([("window", 0.12, True), ("rtmp", 0.9, True)], 900),
        ([("a.mp4", 2.0, False), ("b.mp4", 3.0, False)], 3000),
    ],
)
def test_the_headline_is_the_worst_sink_that_somebody_watches_or_of_all(sinks, headline):
    run = Run()
    for name, delay, watched in sinks:
        hand(run, name, [delay] * 5, watched=watched)
    assert run.snapshot().mouth_to_eye_ms.p95 == pytest.approx(headline)
    assert run.end().latencies.eye().p95 == pytest.approx(headline)


def say(run, sink, number, arrived, *shown, watched=True):
    """Hand over the frames of an utterance: their fates, and when each was handed over."""
    for fate, at in shown:
        spoken = frame(0, 0, arrived=arrived, fate=fate, utterance=Utterance(number, arrived))
        run.observer.handed(sink, spoken, at, watched=watched)


def test_the_response_is_the_first_speaking_frame_of_each_utterance():
    """Held, broken and passed-through frames are no answer, nor are silence and later frames."""
    run = Run()
    say(run, "window", 0, 5.0, (Fate.FADING, 5.7), (Fate.SPEAKING, 5.74), (Fate.FADING, 9.0))
    run.observer.handed("window", frame(0, 0, arrived=5.0, fate=Fate.IDLE), 9.04, watched=True)
    say(run, "window", 1, 20.0, (Fate.HELD, 20.6), (Fate.PASS_THROUGH, 20.7), (Fate.BROKEN, 20.8))
    assert run.snapshot().response_ms.p50 == pytest.approx(700)
    say(run, "window", 1, 20.0, (Fate.SPEAKING, 20.9))
    say(run, "window", 4, 30.0, (Fate.DISCARDED, 30.1))
    assert told(run.end().latencies.response["window"]) == spread([5.7 - 5.0, 20.9 - 20.0])


@pytest.mark.parametrize(
    ("sinks", "headline"),
    [
        ([("out.mp4", 2.0, False), ("window", 0.12, True)], 120),
        ([("rtmp", 0.9, True), ("window", 0.12, True), ("out.mp4", 2.0, False)], 900),
        ([("a.mp4", 2.0, False), ("b.mp4", 3.0, False)], 3000),
    ],
)
def test_the_response_told_is_that_of_the_worst_sink_that_somebody_watches_or_of_all(sinks, headline):
    run = Run()
    for name, delay, watched in sinks:
        for number in range(5):
            say(run, name, number, 100.0, (Fate.SPEAKING, 100 + delay), watched=watched)
    assert run.snapshot().response_ms.p95 == pytest.approx(headline)
    assert run.end().latencies.answer().p95 == pytest.approx(headline)


def test_a_watched_sink_that_showed_no_speech_yet_is_not_answered_for_by_a_file():
    run = Run()
    run.observer.handed("window", frame(0, 0, fate=Fate.IDLE), 1.0, watched=True)
    say(run, "out.mp4", 0, 100.0, (Fate.SPEAKING, 102.0), watched=False)
    assert run.snapshot().response_ms == Percentiles(0, 0, 0)


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
            say(run, "window", number, 100.0 + number, (Fate.FADING, 100.7 + number), (Fate.SPEAKING, 101.9))
        say(run, "out.mp4", 0, 100.0, (Fate.SPEAKING, 103.0), watched=False)
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
