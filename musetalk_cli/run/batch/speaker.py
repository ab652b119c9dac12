"""What an actor of a Ray cluster does, without Ray: jobs, and meanwhile it tells how far it is."""

from __future__ import annotations

import logging
import os
import threading

from musetalk_cli import strict_json
from musetalk_cli.run.batch.job import Json

SAID_LINES = 20
"""Lines that an answer brings along."""


class Speaker:
    """One worker, with what it keeps; what goes in and out are JSON texts.

    Args:
        threads: Threads that its libraries compute with.
    """

    def __init__(self, threads: int) -> None:
        from musetalk_cli.run.batch.work import set_threads
        from musetalk_cli.run.kept import Kept

        set_threads(threads)
        self._kept = Kept()
        self._said = _Said()
        self._how_far = _HowFar()
        logging.getLogger("musetalk_cli").addHandler(self._said)

    def ready(self) -> int:
        """It lives; its process."""
        return os.getpid()

    def do(self, number: int, task: str) -> str:
        """Do a job.

        Args:
            number: What `how_far` is asked for it by.
            task: What `BatchJob.to_json` gave.
        """
        from musetalk_cli.run.batch.work import do_job

        self._said.lines.clear()
        now = self._how_far
        now.begin(number)
        answer = do_job(strict_json.parse(task), self._kept, now.advance, now.prepares)
        answer |= {"said": self._said.lines[:SAID_LINES]}
        return strict_json.dump(strict_json.finite(answer), compact=True)

    def how_far(self, number: int) -> str:
        """How far a job is: `frames` of `total`, and `signs` of what makes no frames; `{}` where it is none.

        It answers while `do` works, in a thread of its own.
        """
        return strict_json.dump(self._how_far.of(number), compact=True)


class _HowFar:
    """How far the job is that is done now; told by the threads that do it, asked by another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = -1
        self._frames = self._total = self._signs = 0

    def begin(self, number: int) -> None:
        with self._lock:
            self._number, self._frames, self._total, self._signs = number, 0, 0, 0

    def advance(self, frames: int, total: int) -> None:
        with self._lock:
            self._frames, self._total = frames, total

    def prepares(self) -> None:
        with self._lock:
            self._signs += 1

    def of(self, number: int) -> Json:
        with self._lock:
            if number != self._number:
                return {}
            return {"frames": self._frames, "total": self._total, "signs": self._signs}


class _Said(logging.Handler):
    """Keeps what is worth knowing until the job's answer takes it along."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < SAID_LINES:
            self.lines.append(record.getMessage())
