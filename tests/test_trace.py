import errno
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from clocks import FakeClock

from musetalk_cli.errors import OutputError
from musetalk_cli.measure import trace as module
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.measure.trace import ANCHOR_S, FLUSH_EVENTS, FLUSH_S, Trace

ROOT = Path(__file__).parents[1]


def events(path, phase="X"):
    return [event for event in json.loads(path.read_text()) if event["ph"] == phase]


def tracks(path):
    """Names of the tracks by their numbers."""
    found = {e["tid"]: e["args"]["name"] for e in events(path, "M") if e["name"] == "thread_name"}
    assert len(found) == sum(e["name"] == "thread_name" for e in events(path, "M")), "each is named once"
    return found


def unfinished(path):
    """What a reader takes from an array that lacks its end."""
    return json.loads(path.read_text() + "]")


def test_host_spans_are_where_and_as_long_as_they_were(tmp_path):
    clock, path = FakeClock(), tmp_path / "run.json"
    with Trace(path) as trace:
        stats = StageStats(clock, trace=trace)
        with stats.span("outer"):
            clock.time += 0.25
            with stats.device_span("inner"):
                clock.time += 0.5
        clock.time += 1
        with stats.span("after"):
            clock.time += 0.000125
    found = {event["name"]: (event["ts"], event["dur"]) for event in events(path)}
    assert found == {
        "outer": (pytest.approx(1000.0e6), pytest.approx(750_000)),
        "inner": (pytest.approx(1000.25e6), pytest.approx(500_000)),
        "after": (pytest.approx(1001.75e6, abs=0.01), pytest.approx(125)),
    }
    assert {event["pid"] for event in json.loads(path.read_text())} == {os.getpid()}
    assert stats.summary(("outer",))["outer"].total_ms == pytest.approx(750)


def test_every_thread_has_its_own_named_track_on_which_spans_nest(tmp_path):
    clock, path = FakeClock(), tmp_path / "run.json"
    trace = Trace(path)
    stats = StageStats(clock, trace=trace)

    def work():
        for _ in range(3):
            with stats.span("outer"):
                clock.time += 1
                with stats.span("inner"):
                    clock.time += 1

    for name in ("arrival", "presentation"):
        thread = threading.Thread(target=work, name=name)
        thread.start()
        thread.join(10)
    work()
    trace.close()
    names = tracks(path)
    assert sorted(names.values()) == ["MainThread", "arrival", "presentation"]
    for number in names:
        own = sorted((e["ts"], -e["dur"], e["name"]) for e in events(path) if e["tid"] == number)
        assert [name for *_, name in own] == ["outer", "inner"] * 3
        ends = []
        for start, minus, _ in own:
            while ends and ends[-1] <= start:
                ends.pop()
            assert not ends or start - minus <= ends[-1], "a span lies in the one around it, or beside it"
            ends.append(start - minus)


def test_threads_of_one_name_that_work_at_once_have_a_track_each(tmp_path):
    path = tmp_path / "run.json"
    trace, together = Trace(path), threading.Barrier(2)

    def work(start):
        together.wait(10)
        for number in range(500):
            trace.span("write", start + number, 0.75)
        together.wait(10)

    threads = [threading.Thread(target=work, args=(start,), name="sink") for start in (1000.0, 1000.5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    trace.close()
    assert list(tracks(path).values()) == ["sink", "sink"]
    for number in tracks(path):
        own = [event["ts"] / 1e6 for event in events(path) if event["tid"] == number]
        assert own == [own[0] + n for n in range(500)], "no span is lost or out of order"


def test_what_fails_leaves_no_span(tmp_path):
    path = tmp_path / "run.json"
    with Trace(path) as trace, pytest.raises(KeyError), StageStats(FakeClock(), trace=trace).span("unet"):
        raise KeyError
    assert events(path) == []


def test_counters_and_marks(tmp_path):
    path = tmp_path / "run.json"
    with Trace(path) as trace:
        trace.counter("frames waiting", 3, 1000.5)
        trace.mark('interrupt "now"\n', 1000.75)
    (counter,) = events(path, "C")
    assert (counter["name"], counter["ts"], counter["args"]) == ("frames waiting", 1000.5e6, {"value": 3})
    (mark,) = events(path, "i")
    assert (mark["name"], mark["ts"], mark["s"]) == ('interrupt "now"\n', 1000.75e6, "p")
    assert mark["tid"] in tracks(path)


def test_a_file_without_its_end_is_whole_up_to_there(tmp_path):
    """After every event, what lies on the disk is events and no half of one, and few are missing."""
    path = tmp_path / "run.json"
    trace = Trace(path)
    assert [event["name"] for event in unfinished(path)] == ["process_name"]
    behind = set()
    for number in range(4 * FLUSH_EVENTS):
        trace.span("sink", 1000 + number * 1e-4, 1e-5)
        behind.add(
            number + 1 - sum(event["ph"] == "X" for event in unfinished(path)) if number % 61 == 0 else 0
        )
    assert max(behind) <= FLUSH_EVENTS
    trace.span("sink", 1000 + FLUSH_S + 1, 1e-5)
    assert sum(event["ph"] == "X" for event in unfinished(path)) == 4 * FLUSH_EVENTS + 1
    trace.close()
    assert len(events(path)) == 4 * FLUSH_EVENTS + 1


def test_a_killed_process_leaves_what_it_had_written(tmp_path):
    path = tmp_path / "run.json"
    program = (
        "import os, sys, pathlib; from musetalk_cli.measure.trace import Trace\n"
        "trace = Trace(pathlib.Path(sys.argv[1]))\n"
        "for second in range(5): trace.span('sink', 1000 + second, 0.5)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, timeout=60)
    assert run.returncode == -9
    assert [event["ts"] for event in unfinished(path) if event["ph"] == "X"] == [
        1e9 + s * 1e6 for s in range(5)
    ]


def test_a_trace_that_is_full_ends_with_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "MAX_EVENTS", 5)
    path = tmp_path / "run.json"
    with Trace(path) as trace:
        for number in range(20):
            trace.span("sink", 1000.0 + number, 0.5)
        assert len(events(path)) == 5, "it is complete as soon as it is full"
    assert [event["ts"] for event in events(path)] == [1e9 + n * 1e6 for n in range(5)]
    assert [event["ts"] for event in events(path)] == [1e9 + n * 1e6 for n in range(5)]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "full" in caplog.text


def test_after_its_end_nothing_is_taken(tmp_path):
    path = tmp_path / "run.json"
    trace = Trace(path)
    trace.close()
    before = path.read_bytes()
    trace.span("sink", 1000.0, 0.5)
    trace.mark("late", 1001.0)
    trace.close()
    assert path.read_bytes() == before
    assert json.loads(before)


@pytest.mark.parametrize("place", ["missing/run.json", "."])
def test_a_place_that_takes_no_file_is_refused(tmp_path, place):
    with pytest.raises(OutputError, match="--trace"):
        Trace(tmp_path / place)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_refused_before_the_run():
    with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
        Trace(Path("/dev/full"))


def test_a_disk_that_fills_up_ends_the_trace_and_not_the_run(tmp_path):
    """A process that may write 20 kB to a file; the trace warns once, and what fitted can be read."""
    path = tmp_path / "run.json"
    program = (
        "import logging, pathlib, resource, sys; from musetalk_cli.measure.trace import Trace\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "trace = Trace(pathlib.Path(sys.argv[1]))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "for second in range(1000): trace.span('sink', 1000 + 2 * second, 0.5)\n"
        "trace.close(); print('the run went on')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, "the run went on\n"), run.stderr
    assert run.stderr.count("WARNING") == 1
    assert os.strerror(errno.EFBIG) in run.stderr
    whole = path.read_text().rpartition(",\n")[0]
    assert len(json.loads(whole + "]")) > 100


class Gpu:
    """The part of `torch.cuda` that spans use, on a device whose own clock runs fast by a share.

    Work and events are queued, and done when the stream is told to run. Elapsed times are fp32 milliseconds,
    as the driver's are.
    """

    def __init__(self, clock, drift=0.0):
        self.clock = clock
        self.drift = drift
        self.work = self.Stream(self)
        self.others = []
        self.waits = []

    def install(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: self.Event(self, enable_timing))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self._other())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.work)

    def _other(self):
        self.others.append(self.Stream(self))
        return self.others[-1]

    class Stream:
        def __init__(self, gpu):
            self.gpu, self.queue, self.free_at = gpu, [], 0.0

        def compute(self, seconds):
            self.queue.append(seconds)

        def run(self):
            at = self.free_at
            for item in self.queue:
                if isinstance(item, float):
                    at += item
                else:
                    at = max(at, item.asked)
                    item.passed = at
            self.queue, self.free_at = [], at

    class Event:
        def __init__(self, gpu, enable_timing):
            assert enable_timing
            self.gpu, self.passed, self.asked, self.stream = gpu, None, None, None

        def record(self, stream):
            self.asked, self.stream = self.gpu.clock.now(), stream
            stream.queue.append(self)

        def query(self):
            return self.passed is not None

        def synchronize(self):
            self.gpu.waits.append(self.stream)
            self.stream.run()
            self.gpu.clock.time = max(self.gpu.clock.time, self.passed)

        def elapsed_time(self, end):
            assert self.query()
            assert end.query()
            elapsed = (end.passed - self.passed) * (1 + self.gpu.drift)
            return float(torch.tensor(elapsed * 1e3, dtype=torch.float32))


@pytest.mark.parametrize(("drift", "within"), [(0.0, 2e-6), (2e-5, 2e-5 * (ANCHOR_S + 1))])
def test_device_spans_lie_on_the_clock_of_the_run(drift, within, tmp_path, monkeypatch):
    """The device lags behind the host: its spans are where its work was, not where it was asked for."""
    clock, path = FakeClock(), tmp_path / "run.json"
    gpu = Gpu(clock, drift)
    gpu.install(monkeypatch)
    with Trace(path) as trace:
        stats = StageStats(clock, torch.device("cuda"), trace)
        expected = []
        busy_until = 0.0
        for batch in range(1000):
            asked = clock.now()
            for stage, takes in (("unet", 0.030), ("vae", 0.012)):
                with stats.device_span(stage):
                    gpu.work.compute(takes)
                begins = max(busy_until, asked)
                busy_until = begins + takes
                expected.append((stage, begins, takes))
            clock.time += 0.040 if batch % 100 else 0.5
            stats.collect()
            assert all(stream is not gpu.work for stream in gpu.waits), "measuring waits for no work"
            gpu.work.run()
            stats.collect()
    (number,) = {event["tid"] for event in events(path)}
    assert tracks(path)[number] == "device"
    found = [(event["name"], event["ts"] / 1e6, event["dur"] / 1e6) for event in events(path)]
    assert [name for name, *_ in found] == [name for name, *_ in expected]
    assert [span[1:] for span in found] == [pytest.approx(span[1:], abs=within) for span in expected]
    assert len(gpu.waits) == (clock.now() - 1000) // ANCHOR_S + 1, "one anchor now and then"
    assert len(gpu.others) == 1
    assert stats.summary(())["unet"].count == 1000
    assert stats.summary(())["unet"].total_ms == pytest.approx(30_000, rel=1e-3)


def test_without_a_trace_no_anchor_is_taken(monkeypatch):
    clock = FakeClock()
    gpu = Gpu(clock)
    gpu.install(monkeypatch)
    stats = StageStats(clock, torch.device("cuda"))
    with stats.device_span("unet"):
        gpu.work.compute(0.25)
    stats.collect()
    assert (gpu.waits, gpu.others) == ([], [])
    assert stats.summary(())["unet"].total_ms == pytest.approx(250)
