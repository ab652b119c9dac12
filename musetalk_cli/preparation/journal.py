"""A journal of what a preparation has done so far: a file to which one JSON value a line is appended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from musetalk_cli import strict_json
from musetalk_cli.avatar.description import Json


class Journal:
    """An append-only file of records that survives the end of the process.

    Use it in a `with` block. A last line that was not written to its end does not count.

    Args:
        path: The file; made if it is not there.

    Raises:
        OSError: It cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, keep: int | None = None) -> Iterator[Any]:
        """Yield the records from the first one; then cut off what is incomplete or beyond `keep`."""
        self._file.seek(0)
        end = 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n") or number == keep:
                break
            try:
                record = strict_json.parse(line)
            except strict_json.JsonError:
                break
            end += len(line)
            yield record
        self._file.truncate(end)

    def append(self, record: Json) -> None:
        """Add a record."""
        self._file.write(strict_json.dump(record, compact=True).encode() + b"\n")
        self._file.flush()
