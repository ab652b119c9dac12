"""A manifest as it was written: CSV, JSON lines or TOML into rows of texts, with the place of each."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from musetalk_cli import strict_json
from musetalk_cli.errors import InputError
from musetalk_cli.strict_json import JsonError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MANIFEST_BYTES = 16 << 20
"""The largest manifest that is read."""
MAX_JOBS = 100_000
"""Jobs of one manifest, after its patterns are resolved."""
FACES = ("avatar", "source")
"""Who speaks: one of them."""
COLUMNS = (*FACES, "audio", "output", "fps", "sharpen", "model")
"""What a job may say."""
TABLE = "job"
"""Name of the tables of a manifest in TOML."""
_DELIMITERS = ",;\t"
_CLOSE = "Close the quote where its field ends; write a quote inside of one twice."
_COLUMNS_ARE = f"The columns are {', '.join(COLUMNS)}."


class ManifestError(InputError):
    """A manifest cannot be used.

    Args:
        message: One sentence.
        hint: What to do about it.
        problems: A sentence for each bad line, each with its place.
    """

    def __init__(self, message: str, hint: str | None = None, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Row:
    """What a manifest says of one job, or of several where its audio is a pattern.

    Attributes:
        place: Where it stands, like `line 3`.
        values: Texts by the names of `COLUMNS`; what is empty is not there.
    """

    place: str
    values: Mapping[str, str]


@dataclass(slots=True)
class Rows:
    """The rows of a manifest that can be read, and what is wrong with the others.

    Attributes:
        rows: Those that can be read, in order.
        problems: The first sentence for each bad place.
    """

    rows: list[Row] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, place: str, values: Mapping[str, Any]) -> None:
        """Take what a line says, or note what is wrong with it."""
        try:
            self.rows.append(Row(place, _texts(values)))
        except InputError as error:
            self.problems[place] = error.message


def read_rows(path: Path) -> Rows:
    """Read a manifest: `.csv`, `.jsonl` (one object a line) or `.toml` (a table `[[job]]` for each job).

    Raises:
        ManifestError: The file cannot be read at all; single bad lines are in `problems`.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ManifestError(
            f"{path} is no manifest by its name.", f"Name a file that ends in {', '.join(_READERS)}."
        )
    found = reader(path, _text(path))
    if not found.rows and not found.problems:
        raise ManifestError(f"{path} holds no job.", _COLUMNS_ARE)
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    if len(data) > MANIFEST_BYTES:
        raise ManifestError(f"{path} is larger than {MANIFEST_BYTES >> 20} MB.", "Split it.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or 0 in data[:2]:  # some write it without a mark
        raise ManifestError(f"{path} is in UTF-16.", "Save it as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ManifestError(f"{path} is not in UTF-8: see line {line}.", "Save it as UTF-8.") from None


def _read_csv(path: Path, text: str) -> Rows:
    """The first line names the columns; a comma, a semicolon or a tab is between two fields."""
    lines = io.StringIO(_line_ends(text))
    head = next((line for line in lines if line.strip()), "")
    lines.seek(0)
    delimiter = max(_DELIMITERS, key=head.count)
    records = _records(path, csv.reader(lines, delimiter=delimiter, strict=True))
    _, head_row = next(records, (0, []))
    names = [name.strip() for name in head_row]
    for name in names:
        if name not in COLUMNS:
            unknown = f"{name!r}, which is not known" if name else "without a name"
            raise ManifestError(f"{path} has a column {unknown}.", _COLUMNS_ARE)
        if names.count(name) > 1:
            raise ManifestError(f"{path} has the column {name} twice.", "Remove one of them.")
    if (missing := _missing(names)) is not None:
        raise ManifestError(f"{path} has no column {missing}.", f"{_COLUMNS_ARE} Its first line names them.")
    found = Rows()
    for line, fields in records:
        if len(fields) > len(names):
            more = f"{len(fields)} fields, and there are {len(names)} columns"
            found.problems[f"line {line}"] = f"it has {more}; put a name with a {delimiter!r} in quotes."
        elif over := [name for name, text in zip(names, fields, strict=False) if "\n" in text]:
            found.problems[f"line {line}"] = f"the quote of its {over[0]} is closed in a later line."
        else:
            found.add(f"line {line}", dict(zip(names, fields, strict=False)))
    return found


def _line_ends(text: str) -> str:
    r"""A text whose lines end in `\n`, whatever wrote it; a `\r` that is left inside a line is dropped."""
    text = text.replace("\r\n", "\n")
    return text.replace("\r", "" if "\n" in text else "\n")


def _records(path: Path, reader: _Reader) -> Iterator[tuple[int, list[str]]]:
    """Records that are not empty, each with the line in which it begins.

    Empty fields at the end are dropped: spreadsheets write them for columns that were used once.
    """
    begins = 1
    try:
        for fields in reader:
            while fields and not fields[-1].strip():
                fields.pop()
            if fields:
                yield begins, fields
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{path} is not CSV: {_told(error, begins, reader.line_num)}.", _CLOSE) from None


def _told(error: csv.Error, begins: int, ends: int) -> str:
    """What is wrong with a record of these lines."""
    if "unexpected end of data" in str(error):
        return f"the quote that is opened in line {begins} is never closed"
    if "expected after" in str(error):
        where = "there" if begins == ends else f"in line {ends}"
        return f"the quote that is opened in line {begins} is closed {where} in the middle of a field"
    return f"line {begins} cannot be read ({error})"


class _Reader(Protocol):
    """What `csv.reader` gives."""

    @property
    def line_num(self) -> int:
        """Lines read so far."""

    def __iter__(self) -> Iterator[list[str]]:
        """The records."""


def _read_jsonl(_path: Path, text: str) -> Rows:
    found = Rows()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = strict_json.parse(line)
        except JsonError as error:
            found.problems[f"line {number}"] = f"it {error}."
            continue
        if isinstance(value, dict):
            found.add(f"line {number}", value)
        else:
            found.problems[f"line {number}"] = "it is no object like {...}."
    return found


def _read_toml(path: Path, text: str) -> Rows:
    try:
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ManifestError(f"{path} is not TOML: {str(error)[:200]}.", "See toml.io.") from None
    if others := sorted(set(data) - {TABLE}):
        raise ManifestError(f"{path} holds {others[0][:40]!r}.", f"Put every job under [[{TABLE}]].")
    tables = data.get(TABLE, [])
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise ManifestError(f"{path} holds one [{TABLE}].", f"Write [[{TABLE}]], with two brackets.")
    found = Rows()
    for number, table in enumerate(tables, 1):
        found.add(f"job {number}", table)
    return found


_READERS: dict[str, Callable[[Path, str], Rows]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".toml": _read_toml,
}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The values as texts, without the spaces and carriage returns around them.

    Raises:
        InputError: One is no text and no number, has an unknown name, or holds a control character.
    """
    texts = {}
    for name, value in values.items():
        if name not in COLUMNS:
            raise InputError(f"{name[:40]!r} is not known. {_COLUMNS_ARE}")
        if value is None:  # as JSON has it for what is empty
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"{name} is neither text nor a number.")
        text = str(value).strip()
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
            raise InputError(f"{name} holds a control character: {text[:40]!r}.")
        if text:
            texts[name] = text
    if (missing := _missing(texts)) is not None:
        raise InputError(f"{missing} is missing.")
    if all(name in texts for name in FACES):
        raise InputError("it has an avatar and a source: one of them speaks.")
    return texts


def _missing(names: Collection[str]) -> str | None:
    """What a job needs and these names lack, or None."""
    if not any(name in names for name in FACES):
        return " or ".join(FACES)
    return None if "audio" in names else "audio"
