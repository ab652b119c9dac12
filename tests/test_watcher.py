import threading
import time

import pytest
from clocks import FakeClock

from musetalk_cli.live import watcher
from musetalk_cli.live.observe import Depths, Observer
from musetalk_cli.live.watcher import Watcher

TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Snapshots come a hundred times as often, and an end waits a tenth as long."""
    monkeypatch.setattr(watcher, "EVERY_S", 0.0025)
    monkeypatch.setattr(watcher, "END_S", 0.2)


@pytest.fixture
def observer():
    return Observer(FakeClock(), 0.5, 16_000)


def snapshots_of(observer):
    return lambda: observer.snapshot(Depths(0, 0, 0))


@pytest.mark.usefixtures("no_thread_is_left")
def test_snapshots_come_while_no_frame_flows_and_once_more_at_the_end(observer):
    taken, several = [], threading.Event()

    def watch(snapshot):
        taken.append(snapshot)
        if len(taken) == 5:
            several.set()

    watching = Watcher(snapshots_of(observer), watch)
    watching.start()
    assert several.wait(TIMEOUT_S)
    assert {snapshot.frames for snapshot in taken} == {0}
    before = len(taken)
    watching.stop()
    assert len(taken) > before


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_short_stream_is_told_of_once(observer, monkeypatch):
    monkeypatch.setattr(watcher, "EVERY_S", 3600)
    taken = []
    watching = Watcher(snapshots_of(observer), taken.append)
    watching.start()
    watching.stop()
    assert len(taken) == 1


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_watcher_that_was_never_started_has_ended(observer):
    Watcher(snapshots_of(observer), None).stop()


@pytest.mark.usefixtures("no_thread_is_left")
def test_snapshots_are_taken_for_the_trace_where_nobody_watches(observer):
    several, count = threading.Event(), []

    def snapshot():
        count.append(1)
        if len(count) == 3:
            several.set()
        return snapshots_of(observer)()

    watching = Watcher(snapshot, None)
    watching.start()
    assert several.wait(TIMEOUT_S)
    watching.stop()


def test_a_watcher_that_stands_still_holds_up_the_end_for_its_time_and_no_longer(observer):
    entered, gate, threads = threading.Event(), threading.Event(), []

    def watch(_):
        threads.append(threading.current_thread())
        entered.set()
        assert gate.wait(TIMEOUT_S)

    watching = Watcher(snapshots_of(observer), watch)
    watching.start()
    assert entered.wait(TIMEOUT_S)
    ended = threading.Event()

    def stop():
        watching.stop()
        ended.set()

    stopping, asked = threading.Thread(target=stop), time.monotonic()
    stopping.start()
    try:
        assert ended.wait(TIMEOUT_S / 2), "the end waits for the watcher"
        assert time.monotonic() - asked >= 0.2, "it is given its time"
        assert threads[0].daemon, "it must not keep the process"
    finally:
        gate.set()
        stopping.join(TIMEOUT_S)
        threads[0].join(TIMEOUT_S)


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_watcher_that_fails_ends_watching_and_says_so(observer, caplog):
    failed = threading.Event()

    def watch(_):
        failed.set()
        raise KeyError("terminal")

    watching = Watcher(snapshots_of(observer), watch)
    with caplog.at_level("DEBUG", "musetalk_cli"):
        watching.start()
        assert failed.wait(TIMEOUT_S)
        watching.stop()
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "Watching ended, and the stream goes on" in warning.getMessage()
    assert "KeyError" in caplog.text
