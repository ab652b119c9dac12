import threading
from fractions import Fraction

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.live.observe import RECENT, SNAPSHOT_S, Latencies, Observer
from musetalk_cli.measure.trace import Trace
from musetalk_cli.types import Frame, FrameRequest, Shown

RATE = 16_000
CHUNK_S = 0.5
DEPTHS = (1, 2, 3)
PICTURE = np.zeros((1, 1, 3), np.uint8)


def frame(index, hop, *, delay=0.0, ready=100.0, arrived=0.0, shown=Shown.SPEAKING):
    request = FrameRequest(index, None, np.zeros((640, 1), np.float32), arrived, ready, hop)
    return Frame(request, PICTURE, Fraction(index, 25), ready + delay, shown)


class Run:
    """An observer, and what it says how the run goes."""

    def __init__(self, *, begins_after=0.0):
        self.clock = FakeClock()
        self.observer = Observer(self.clock, CHUNK_S, RATE)
        self.clock.time += begins_after
        self.outcome = self.observer.start()
        self.snapshots = []

    def present(self, *frames, after=0.0, due=None):
        for one in frames:
            self.clock.time += after
            self.observer.presented(one, due, DEPTHS, self.snapshots.append)

    def end(self):
        self.observer.end(DEPTHS, self.snapshots.append)
        return self.snapshots[-1]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(list(Shown)), st.integers(0, 1000)),
        min_size=1,
        max_size=60,
    )
)
def test_latencies_are_those_of_made_frames_one_first_and_one_last_a_chunk(steps):
    """Beside a table by chunk, whatever a chunk holds; a chunk without a made frame has no figures."""
    latencies, table, hop, late = Latencies(CHUNK_S), {}, 0, 0
    for index, (further, shown, ms) in enumerate(steps):
        hop += further
        latencies.composited(frame(index, hop, delay=ms / 1000, shown=shown, ready=0.0), due=0.7)
        if shown is Shown.SPEAKING:
            table.setdefault(hop, []).append(ms / 1000)
            late += ms > 700
    latencies.close()
    latencies.close()
    assert list(latencies.first_frame._kept) == [delays[0] for delays in table.values()]
    assert list(latencies.last_frame._kept) == [delays[-1] for delays in table.values()]
    assert latencies.late == late


def test_frames_are_counted_by_what_they_show():
    run = Run()
    kinds = [Shown.SPEAKING] * 5 + [Shown.IDLE] * 3 + [Shown.HELD] * 2 + [Shown.SPEAKING]
    run.present(*(frame(index, index // 4, shown=shown) for index, shown in enumerate(kinds)))
    assert run.snapshots == []
    snapshot = run.end()
    assert (run.outcome.frames, run.outcome.idle, run.outcome.dropped) == (11, 3, 2)
    assert (snapshot.frames, snapshot.idle, snapshot.dropped, snapshot.late) == (11, 3, 2, 0)
    assert run.outcome.samples == 11 * 640


@pytest.mark.parametrize(("due", "late"), [(100.5, 2), (None, 0)])
def test_a_frame_is_late_that_was_made_after_it_was_due_and_none_that_has_no_time(due, late):
    run = Run()
    delays = [0.1, 0.499, 0.501, 3.0]
    run.present(*(frame(index, index, delay=delay) for index, delay in enumerate(delays)), due=due)
    run.present(frame(4, 4, delay=9.0, shown=Shown.HELD), frame(5, 5, delay=9.0, shown=Shown.IDLE), due=due)
    assert run.end().late == run.outcome.latencies.late == late


def test_a_run_says_how_it_goes_four_times_a_second_at_most():
    run = Run()
    times = []
    for index in range(250):
        before = len(run.snapshots)
        run.present(frame(index, index // 12), after=0.04)
        if len(run.snapshots) > before:
            times.append(run.clock.now())
    between = np.diff(times)
    assert between.min() >= SNAPSHOT_S - 1e-9
    assert between.max() <= SNAPSHOT_S + 0.04 + 1e-9
    run.end()
    assert len(run.snapshots) == len(times) + 1
    assert [one.frames for one in run.snapshots] == sorted(one.frames for one in run.snapshots)


def test_the_rate_is_that_of_the_last_seconds():
    """Ten seconds at 25 fps, then at 10 fps: old frames stop counting after the snapshots that are kept."""
    run = Run()
    run.present(*(frame(index, 0) for index in range(250)), after=0.04)
    assert run.snapshots[-1].fps == pytest.approx(25, rel=0.01)
    run.present(*(frame(index, 0) for index in range(250, 350)), after=0.1)
    assert run.snapshots[-1].fps == pytest.approx(10, rel=0.01)
    assert len(run.observer._recent) == RECENT
    assert run.snapshots[-1].elapsed_s == pytest.approx(20, abs=0.3)


def test_the_first_snapshot_counts_from_the_start():
    run = Run(begins_after=10)
    assert run.outcome is run.observer.outcome
    run.present(*(frame(index, 0) for index in range(7)), after=0.04)
    assert run.snapshots[0].elapsed_s == pytest.approx(0.28)
    assert run.snapshots[0].fps == pytest.approx(25)


def test_a_snapshot_says_what_waits_and_whether_it_speaks():
    run = Run()
    run.present(frame(0, 0, shown=Shown.SPEAKING), after=1)
    run.present(frame(1, 0, shown=Shown.IDLE), after=1)
    first, second = run.snapshots
    assert (first.speaking, second.speaking) == (True, False)
    assert (first.sound_waiting, first.requests_waiting, first.frames_waiting) == DEPTHS
    assert first.failed == ()


def test_latencies_in_a_snapshot_are_in_milliseconds():
    run = Run()
    run.present(frame(0, 0, delay=0.1), frame(1, 0, delay=0.3), frame(2, 1, delay=0.2))
    run.observer.handed(frame(0, 0, arrived=1000.0), 1000.7)
    snapshot = run.end()
    assert snapshot.first_frame_ms.p50 == pytest.approx(150)
    assert snapshot.last_frame_ms.p50 == pytest.approx(250)
    assert snapshot.mouth_to_eye_ms.p50 == pytest.approx(700)


def test_work_is_what_was_not_waited():
    """Ten seconds for twenty seconds of sound, in seven of which there was nothing to do."""
    run = Run()
    run.present(*(frame(index, 0) for index in range(500)), after=0.02)
    run.observer.waited(3)
    run.observer.waited(4)
    snapshot = run.end()
    assert (run.outcome.wall_s, run.outcome.waiting_s) == (pytest.approx(10), 7)
    assert snapshot.real_time_factor == pytest.approx(3 / 20)


def test_a_run_without_a_frame_has_figures():
    snapshot = Run().end()
    assert (snapshot.frames, snapshot.fps, snapshot.real_time_factor) == (0, 0, 0)


def test_mouth_to_eye_counts_a_frame_once():
    """Where another sink takes over, it may hand over frames again that were counted."""
    run = Run()
    for index in (0, 1, 2, 1, 2, 3):
        run.observer.handed(frame(index, 0, arrived=1.0), 2.0 + index)
    assert list(run.outcome.latencies.mouth_to_eye._kept) == [1, 2, 3, 4]


def test_failures_are_kept_in_order_and_said_once(caplog):
    run, errors = Run(), [OSError("disk full"), OSError("gone")]
    run.observer.failed("out.mp4", errors[0])
    run.observer.failed("viewer", errors[1])
    assert run.outcome.failures == errors
    assert run.end().failed == ("out.mp4", "viewer")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["out.mp4 failed and was closed: disk full", "viewer failed and was closed: gone"]


def test_depths_go_to_the_trace(tmp_path):
    import json

    clock = FakeClock()
    with Trace(tmp_path / "trace.json") as trace:
        observer = Observer(clock, CHUNK_S, RATE, trace)
        observer.start()
        clock.time += 1
        observer.presented(frame(0, 0), None, DEPTHS, None)
        observer.end(DEPTHS, None)
    events = json.loads((tmp_path / "trace.json").read_text())
    events = events if isinstance(events, list) else events["traceEvents"]
    counters = [(event["name"], *event["args"].values()) for event in events if event["ph"] == "C"]
    assert counters == [("sound", 1), ("requests", 2), ("frames", 3)] * 2


def test_threads_may_tell_at_once():
    """Sinks hand over and fail while frames are presented; nothing is lost."""
    run = Run()

    def hand_over():
        for index in range(2000):
            run.observer.handed(frame(index, 0), 1.0)

    def fail():
        for number in range(200):
            run.observer.failed("sink", OSError(str(number)))

    threads = [threading.Thread(target=target) for target in (hand_over, fail)]
    for thread in threads:
        thread.start()
    run.present(*(frame(index, index // 12) for index in range(2000)), after=0.04)
    for thread in threads:
        thread.join()
    assert len(run.outcome.latencies.mouth_to_eye) == 2000
    assert len(run.outcome.failures) == len(run.end().failed) == 200
