"""Log lines never hold up who logs, come in order, and end where nobody reads them."""

import io
import json
import logging
import os
import subprocess
import sys
import threading

import pytest

from musetalk_cli.cli import log_lines
from musetalk_cli.cli.log_lines import LogLines
from musetalk_cli.cli.options import set_up_log
from musetalk_cli.cli.render import after_log, say

TIMEOUT_S = 60


class Halted(io.StringIO):
    """A terminal that takes nothing until it is let go on."""

    def __init__(self):
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def write(self, text):
        self.entered.set()
        assert self.gate.wait(TIMEOUT_S)
        return super().write(text)


@pytest.fixture
def log():
    """Makes a log that writes to a stream."""
    log = logging.Logger("own")

    def writing_to(stream):
        log.addHandler(LogLines(stream))
        return log

    return writing_to


def flush(log):
    log.handlers[0].flush()


def test_lines_of_many_threads_come_whole_and_each_threads_in_order(log):
    stream = io.StringIO()
    own = log(stream)

    def say(name):
        for number in range(100):
            own.warning("%s %d", name, number)

    threads = [threading.Thread(target=say, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    flush(own)
    lines = stream.getvalue().splitlines()
    for name in "abc":
        assert [line for line in lines if line[0] == name] == [f"{name} {number}" for number in range(100)]
    assert len(lines) == 300


def test_a_stream_that_takes_nothing_holds_up_nobody_and_is_waited_for_once(log, monkeypatch):
    """Whoever logs does so in this thread: it would stand here for ever."""
    monkeypatch.setattr(log_lines, "MOST_LINES", 5)
    monkeypatch.setattr(log_lines, "PATIENCE_S", 0.05)
    stream = Halted()
    own = log(stream)
    own.warning("first")
    assert stream.entered.wait(TIMEOUT_S)
    for number in range(20):
        own.warning("line %d", number)
    flush(own)
    monkeypatch.setattr(log_lines, "PATIENCE_S", TIMEOUT_S)
    flush(own)
    assert stream.getvalue() == ""
    stream.gate.set()
    for thread in threading.enumerate():
        if thread.name == "log":
            thread.join(TIMEOUT_S)
    left_out = "15 lines of the log were left out: they were not read in time."
    assert stream.getvalue().splitlines() == ["first", *(f"line {number}" for number in range(5)), left_out]


def test_what_is_said_beside_the_data_waits_for_nobody_either_and_keeps_its_place(own_log, monkeypatch):
    stream = Halted()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_log(verbose=True)
    ours = logging.getLogger("musetalk_cli")
    ours.warning("before")
    say("said \x1b")
    ours.warning("after")
    stream.gate.set()
    after_log()
    assert stream.getvalue() == "WARNING: before\nsaid \\x1b\nWARNING: after\n"


def test_a_reader_who_has_gone_is_no_failure(log, capfd):
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as stream:
        own = log(stream)
        own.warning("nobody reads this")
        flush(own)
    assert capfd.readouterr().err == ""


def test_a_program_ends_though_nobody_reads_its_log():
    """Its pipe is full from the beginning, and read only once it has ended."""
    code = """
import json, logging, os, sys
from musetalk_cli.cli import log_lines
log_lines.PATIENCE_S = 0.05
ours = logging.getLogger("musetalk_cli")
ours.addHandler(log_lines.LogLines(sys.stderr))
os.set_blocking(2, False)
try:
    while True:
        os.write(2, b"." * 512)
except BlockingIOError:
    os.set_blocking(2, True)
for number in range(10):
    ours.warning("line %d", number)
print(json.dumps("done"))
"""
    ours, theirs = os.pipe()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.close(theirs)
        os.close(ours)
    assert (ended.returncode, json.loads(ended.stdout)) == (0, "done")
