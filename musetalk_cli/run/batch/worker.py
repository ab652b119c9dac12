"""A worker of a batch: jobs as lines of JSON on standard input, what became of them on standard output.

It ends when its input does. Where it is at work then, whoever gave the work is gone: it leaves nothing
half-written and ends at once.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from typing import Any, TextIO

from musetalk_cli import strict_json


class _Channel:
    """Lines to whoever gave the work. What libraries print goes to standard error instead."""

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def tell(self, value: dict[str, Any]) -> None:
        """Send one line."""
        with self._lock:
            self._out.write(strict_json.dump(strict_json.finite(value), compact=True) + "\n")
            self._out.flush()


class _Said(logging.Handler):
    """Sends what is worth knowing to whoever gave the work."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__(logging.WARNING)
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        self._channel.tell({"said": record.getMessage()})


class _Tasks:
    """Jobs from standard input, read by a thread of their own so that its end is seen at once."""

    def __init__(self) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue(2)
        self._busy, self._gone = threading.Event(), threading.Event()
        threading.Thread(target=self._read, name="tasks", daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._lines.put(line)
        self._gone.set()
        self._lines.put(None)
        if self._busy.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    def take(self) -> str | None:
        """The next job, or None where there is no more, and nobody waits for one."""
        self._busy.clear()
        line = self._lines.get()
        self._busy.set()
        return None if self._gone.is_set() else line


def main() -> int:
    """Work until there is no more; the only argument is the number of threads to compute with."""
    channel = _Channel()
    log = logging.getLogger("musetalk_cli")
    log.addHandler(_Said(channel))
    log.propagate = False
    try:
        return _work(channel, _Tasks(), int(sys.argv[1]))
    except (KeyboardInterrupt, BrokenPipeError):
        return 1


def _work(channel: _Channel, tasks: _Tasks, threads: int) -> int:
    from musetalk_cli.run.batch.pool import LOST
    from musetalk_cli.run.batch.work import do_job, set_threads
    from musetalk_cli.run.kept import Kept

    set_threads(threads)
    kept = Kept()

    def advance(frames: int, total: int) -> None:
        channel.tell({"frames": frames, "total": total})

    def prepares() -> None:
        channel.tell({"prepares": True})

    while (line := tasks.take()) is not None:
        answer = do_job(strict_json.parse(line), kept, advance, prepares)
        channel.tell(answer)
        if answer["state"] == LOST:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
