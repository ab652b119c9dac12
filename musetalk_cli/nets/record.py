"""The record of a models folder: digests of files that the table of published files knows none of.

It is written when such a file is first fetched, or made by `musetalk models convert`, and what is fetched or
verified later is held to it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from musetalk_cli import strict_json
from musetalk_cli.errors import ModelError, OutputError
from musetalk_cli.nets.pins import Pin
from musetalk_cli.strict_json import JsonError

NAME = "digests.json"
MADE = "made-here"
"""In the place of a commit: of files that were made in this folder."""
ELSEWHERE = "Check its permissions, or choose another folder with --models-dir."
"""What to do where a models folder cannot be written."""
_MAX_BYTES = 1 << 20
_SHA256, _REVISION = re.compile(r"[0-9a-f]{64}"), re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What is recorded of one file.

    Attributes:
        bytes: Its size.
        sha256: Its digest in hexadecimal.
        revision: The commit it was fetched from, or `MADE`.
        source: Where it came from, in words.
    """

    bytes: int
    sha256: str
    revision: str
    source: str

    @property
    def pin(self) -> Pin:
        """What the file is held to."""
        return Pin(self.bytes, self.sha256, self.revision)


def read(models_dir: Path) -> dict[str, Entry]:
    """What is recorded, by the path under the models folder, with `/`; nothing where there is no record.

    Raises:
        ModelError: It cannot be read, or is no such record.
    """
    path = models_dir / NAME
    try:
        data = strict_json.read(path, _MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except JsonError as error:
        raise ModelError(f"{path} {error}.", _ANEW) from None
    if not isinstance(data, dict):
        raise ModelError(f"{path} is no record of digests: its top level is not an object.", _ANEW)
    return {name: _entry(path, name, value) for name, value in data.items()}


_ANEW = "Delete it: `musetalk models download NAME` records the digests of what it fetches again."


def _entry(path: Path, name: str, value: Any) -> Entry:  # noqa: ANN401 - any value that JSON has
    fields = value if isinstance(value, dict) else {}
    size, sha256 = fields.get("bytes"), fields.get("sha256")
    revision, source = fields.get("revision"), fields.get("source")
    if (
        type(size) is int
        and size >= 0
        and isinstance(source, str)
        and _matches(_SHA256, sha256)
        and _matches(_REVISION, revision)
    ):
        return Entry(size, str(sha256), str(revision), source)
    raise ModelError(f"{path} is broken: its entry {name[:80]!r} is none of a file.", _ANEW)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def write(models_dir: Path, added: dict[str, Entry], without: Collection[str] = ()) -> None:
    """Add entries to the record, in the place of those of the same names, and leave some out; all or nothing.

    Raises:
        ModelError: What is there is no such record.
        OutputError: It cannot be written.
    """
    before = read(models_dir)
    entries = {name: entry for name, entry in before.items() if name not in without} | added
    if entries == before:
        return
    plain = {name: asdict(entries[name]) for name in sorted(entries)}
    path = models_dir / NAME
    hidden = path.with_name(f".{NAME}.{secrets.token_hex(4)}")
    try:
        try:
            hidden.write_text(strict_json.dump(plain, indent=2) + "\n", encoding="utf-8")
            os.replace(hidden, path)  # noqa: PTH105 - replaces on Windows too
        finally:
            hidden.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", ELSEWHERE) from error
