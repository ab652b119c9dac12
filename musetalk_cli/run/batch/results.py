"""The file of results: one JSON object a line, written by whoever started the batch and by nobody else."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from musetalk_cli import strict_json
from musetalk_cli.errors import InputError, OutputError
from musetalk_cli.media.digest import digest_of
from musetalk_cli.strict_json import JsonError

DONE, FAILED = "done", "failed"
"""How a job ended: its output is there, or it is not."""

_BEGIN = b'{"output":'
"""What the file begins with, and every line of it."""
_LINE_BYTES = 1 << 20
"""A longer line is none of ours."""


def failure(error: str, hint: str | None) -> dict[str, Any]:
    """What is told of a job that has failed."""
    return {"state": FAILED, "error": error, "hint": hint}


class Results:
    """Appends one line for each job that ended; a line that was written is on the disk.

    Used in a `with` statement. What a killed run left of a line is removed first.

    Args:
        path: The file; made if it is not there.

    Raises:
        OutputError: It cannot be written, another batch writes it, or it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise self._refused(error) from error
        try:
            _lock(self._file)
            ours = _BEGIN.startswith(os.pread(self._file, len(_BEGIN), 0))
            if ours:
                _remove_torn_line(self._file)
        except BlockingIOError:
            os.close(self._file)
            raise OutputError(
                f"--results {path} is written by another batch.", "Wait for it, or name another file."
            ) from None
        except OSError as error:
            os.close(self._file)
            raise self._refused(error) from error
        if not ours:
            os.close(self._file)
            raise OutputError(
                f"--results {path} is there, and holds no results of a batch.", "Name another file."
            )

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line.

        Raises:
            OutputError: It cannot be written.
        """
        rest = (strict_json.dump(strict_json.finite(record), compact=True) + "\n").encode()
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            f"--results {self._path} cannot be written: {error.strerror}.", "Name another file."
        )

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The last line of each output; lines that are none of ours are passed over.

    Raises:
        InputError: The file cannot be read.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        with path.open("rb") as file:
            while line := file.readline(_LINE_BYTES):
                if (record := _record(line)) is not None:
                    found[record["output"]] = record
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(
            f"--results {path} cannot be read: {error.strerror}.", "Name another file."
        ) from error
    return found


def is_finished(record: Mapping[str, Any] | None, key: str) -> bool:
    """True where a record says that its output was made of the same inputs with the same settings.

    The output must be there as it was written, too: of the same size and content.
    """
    if record is None or record.get("state") != DONE or record.get("key") != key:
        return False
    output = Path(record["output"])
    try:
        if output.stat().st_size != record.get("output_bytes"):
            return False
        return digest_of([output]) == record.get("output_sha256")
    except (OSError, InputError):
        return False


def _lock(file: int) -> None:
    """Be the only one who writes a file, where its system has locks.

    Raises:
        BlockingIOError: Somebody else does.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks, as clusters have
        return


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = strict_json.parse(line)
    except JsonError:
        return None
    ours = isinstance(record, dict) and isinstance(record.get("output"), str)
    return record if ours else None


def _remove_torn_line(file: int) -> None:
    """Cut off what stands behind the last line end."""
    size = os.fstat(file).st_size
    tail = os.pread(file, _LINE_BYTES, max(0, size - _LINE_BYTES))
    if tail and not tail.endswith(b"\n"):
        os.ftruncate(file, size - len(tail) + tail.rfind(b"\n") + 1)
