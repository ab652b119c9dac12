"""What is shown of work on its way: lines where nobody watches a terminal, a bar where somebody does."""

import io
import logging
from types import SimpleNamespace

import pytest

from musetalk_cli.cli import progress as display
from musetalk_cli.cli.progress import BYTES, FRAMES, batch_progress, progress, size_text, stages, steps_of
from musetalk_cli.text import PROGRESS


@pytest.fixture
def at(monkeypatch):
    """Sets the time that the displays see."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(display.time, "monotonic", lambda: clock.now)

    def move(now):
        clock.now = now

    return move


@pytest.fixture
def lines(caplog):
    """Gives the lines since it was asked last; each has a level of its own."""
    caplog.set_level(PROGRESS, logger="musetalk_cli")

    def fetch():
        found = [record.getMessage() for record in caplog.records]
        assert {record.levelno for record in caplog.records} <= {PROGRESS}
        caplog.clear()
        return found

    return fetch


@pytest.fixture
def terminal(monkeypatch):
    """Makes stderr a terminal of 120 columns, and gives what is written to it."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def open_terminal():
        made = Terminal()
        monkeypatch.setattr("sys.stderr", made)
        return made

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return open_terminal


def test_lines_about_progress_are_between_what_is_worth_knowing_and_warnings():
    assert logging.INFO < PROGRESS < logging.WARNING


@pytest.mark.parametrize(
    ("unit", "done", "total", "expected"),
    [
        (FRAMES, 30, 100, "work: 30 of 100 frames, 2.0 fps, 0:00:35 left"),
        (FRAMES, 30, None, "work: 30 frames, 2.0 fps"),
        (BYTES, 30_000_000, 100_000_000, "work: 30 MB of 100 MB, 2 MB/s, 0:00:35 left"),
    ],
)
def test_a_line_tells_count_rate_and_time_left_of_its_unit(lines, at, unit, done, total, expected):
    with progress("work", unit) as advance:
        advance(0, total)
        at(15.0)
        advance(done, total)
    assert lines() == [expected]


def test_a_line_comes_every_five_seconds_at_the_most_and_a_note_stands_behind_it(lines, at):
    with progress("speaking") as advance:
        for now in (1.0, 4.9, 5.0, 6.0, 9.9):
            at(now)
            advance(3, 8, "(vae 5 fps)")
    assert lines() == ["speaking: 3 of 8 frames (vae 5 fps)"]


def test_a_bar_tells_the_same_on_a_terminal_and_leaves_nothing(terminal, at):
    written = terminal()
    with progress("speaking") as advance:
        advance(0, 100)
        at(15.0)
        advance(30, 100, "(vae 5 fps)")
    shown = written.getvalue()
    for part in ("speaking", "30%", "2.0 fps", "0:00:35 left", "(vae 5 fps)"):
        assert part in shown
    assert shown.endswith("\x1b[2K"), "the line is cleared"


def test_a_bar_of_bytes_that_never_come_is_not_seen_and_one_of_frames_is_from_the_start(terminal):
    written = terminal()
    with progress("verify v15", BYTES):
        pass
    assert "verify" not in written.getvalue()
    with progress("speaking"):
        pass
    assert "speaking" in written.getvalue()


def test_each_stage_has_a_display_of_its_own_that_begins_anew(lines, at):
    with stages() as advance:
        tell = steps_of(advance)
        for stage, begin in (("faces", 0), ("masks", 20)):
            at(begin)
            tell(SimpleNamespace(stage=stage, done=0, total=40, rates={}))
            at(begin + 10.0)
            tell(SimpleNamespace(stage=stage, done=20, total=40, rates={"decode": 99.6, "detect": 2.0}))
    expected = "20 of 40 frames, 2.0 fps, 0:00:10 left (decode 100, detect 2 fps)"
    assert lines() == [f"faces: {expected}", f"masks: {expected}"]


def test_on_a_terminal_the_bar_of_a_stage_ends_with_the_next_one(terminal):
    written = terminal()
    with stages() as advance:
        for stage in ("faces", "masks", "masks"):
            advance(stage, 1, 2)
    before, _, after = written.getvalue().partition("masks")
    assert "faces" in before
    assert "faces" not in after


@pytest.mark.parametrize(("failed", "said"), [(0, "3 of 9 jobs"), (2, "3 of 9 jobs, 2 failed")])
def test_a_batch_tells_its_jobs_and_the_time_left_for_all_of_their_sound(lines, at, failed, said):
    with batch_progress() as advance:
        advance(SimpleNamespace(ended=0, failed=0, jobs=9, work=0, total=1000))
        at(10.0)
        advance(SimpleNamespace(ended=3, failed=failed, jobs=9, work=500, total=1000))
    assert lines() == [f"speaking: {said}, 0:00:10 left"]


def test_a_batch_shows_its_jobs_on_a_terminal(terminal):
    written = terminal()
    with batch_progress() as advance:
        advance(SimpleNamespace(ended=3, failed=1, jobs=9, work=500, total=1000))
    assert "3 of 9 jobs, 1 failed" in written.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (151_000_000, "151 MB"), (3_400_000_000, "3.4 GB")],
)
def test_a_size_is_told_in_the_largest_unit_it_fills(count, text):
    assert size_text(count) == text
