"""Log lines on stderr, written by a thread of their own: a terminal that takes nothing holds up nobody."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from typing import TextIO

MOST_LINES = 1000
"""Lines that may wait; more are left out and counted."""
PATIENCE_S = 2.0
"""How long whoever wants the lines written waits for it."""


class LogLines(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.10 has no StreamHandler[TextIO]
    """Writes log lines to a stream, and never lets the thread wait that logs.

    A stream's threads log too: with a full pipe or a terminal that was halted, one line would stop them all.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: deque[str] = deque()
        self._left_out = 0
        self._changed = threading.Condition()
        self._is_writing = False
        self._stands_still = False

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record in line."""
        self.put(self.format(record))

    def put(self, text: str) -> None:
        """Put a text in line, as it is."""
        with self._changed:
            if len(self._waiting) >= MOST_LINES:
                self._left_out += 1
                return
            self._waiting.append(text)
            if self._is_writing:
                return
            self._is_writing = True
        try:
            threading.Thread(target=self._write_all, name="log", daemon=True).start()
        except RuntimeError:  # no thread is to be had, as while the program ends
            self._write_all()

    def flush(self) -> None:
        """Wait until every line is written, but for a stream that takes nothing: for that only once."""
        with self._changed:
            if not self._stands_still:
                written = self._changed.wait_for(lambda: not self._is_writing, PATIENCE_S)
                self._stands_still = not written

    def _write_all(self) -> None:
        while (text := self._next()) is not None:
            # whoever reads stderr has gone: there is nobody to be told
            with suppress(OSError, ValueError):
                _write(self.stream, text + self.terminator)
            self._stands_still = False

    def _next(self) -> str | None:
        """The next text; None where there is none, and the thread that asked ends."""
        with self._changed:
            if self._waiting:
                return self._waiting.popleft()
            if self._left_out:
                said = f"{self._left_out} lines of the log were left out: they were not read in time."
                self._left_out = 0
                return self.format(logging.makeLogRecord({"msg": said, "levelname": "WARNING"}))
            self._is_writing = False
            self._changed.notify_all()
            return None


def _write(stream: TextIO, line: str) -> None:
    """Write a line, to a file by its descriptor."""
    # a thread that waits in a stream holds its lock, and Python aborts if that of stderr is held at its end
    if isinstance(stream, io.TextIOWrapper):
        with suppress(io.UnsupportedOperation):
            descriptor = stream.fileno()
            rest = memoryview(line.encode(stream.encoding, "backslashreplace"))
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            return
    stream.write(line)
    stream.flush()
