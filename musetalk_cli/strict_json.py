"""JSON as its standard (RFC 8259) has it, for everything that is read and written.

Python's own reader and writer go beyond it: they take NaN, Infinity and numbers like 1e400, and of a key that
stands twice only the last one. What is refused here is read differently, or not at all, by other programs.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
"""Lists and objects inside each other; what is deeper is a trap for readers that recurse."""

_MAX_DIGITS = 19


class JsonError(ValueError):
    """A text is not the JSON that is wanted; the message says it of the file: `FILE is not JSON: ...`."""


def read(path: Path, max_bytes: int) -> Any:  # noqa: ANN401 - any value that JSON has
    """Read a JSON file, and no more of it than it may have.

    Raises:
        OSError: It cannot be read.
        JsonError: It is larger, or is not JSON.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise JsonError(f"is larger than {max_bytes >> 20} MB")
    return parse(data)


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any value that JSON has
    """The value of a JSON text in UTF-8.

    Numbers are finite, whole ones within 64 bits; keys are unique; nothing nests deeper than `MAX_DEPTH`.

    Raises:
        JsonError: It is not JSON, or breaks one of these rules.
    """
    try:
        decoded = text if isinstance(text, str) else text.decode()
        value = json.loads(
            decoded.removeprefix("\ufeff"),
            parse_constant=_refuse,
            parse_float=_fraction,
            parse_int=_whole,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise JsonError(f"is not JSON: byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        reason = error.msg[:1].lower() + error.msg[1:]
        raise JsonError(f"is not JSON: {reason} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonError(f"nests deeper than {MAX_DEPTH} levels") from None
    _check_depth(value)
    return value


def dump(value: object, *, indent: int | None = None, compact: bool = False, sort_keys: bool = False) -> str:
    """A value as JSON in ASCII, in which no character means anything to a terminal.

    Args:
        value: Lists, mappings with text keys, texts, finite numbers, booleans and None.
        indent: Spaces per level, each entry on its line; None puts everything on one.
        compact: Without spaces.
        sort_keys: In the order of the keys.

    Raises:
        ValueError: A number is not finite, for which JSON has no word.
    """
    separators = (",", ":") if compact else None
    text = json.dumps(value, allow_nan=False, indent=indent, separators=separators, sort_keys=sort_keys)
    return text.replace("\x7f", "\\u007f")


def finite(value: object) -> object:
    """A value in which figures that are not finite, for which JSON has no word, are None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


def _refuse(name: str) -> float:
    raise JsonError(f"is not JSON: {name} is not a number of JSON")


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"holds the number {text[:40]}, which is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS + 1 or abs(value := int(text)) >= 1 << 63:
        raise JsonError(f"holds the number {text[:40]}, which is too large")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise JsonError(f"has the key {twice[:40]!r} twice")
    return found


def _check_depth(value: object) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        inner = [list(entry.values()) if isinstance(entry, dict) else entry for entry in level]
        level = [
            part for entry in inner if isinstance(entry, list) for part in entry
            if isinstance(part, (list, dict))
        ]  # fmt: skip
        if not level:
            return
    raise JsonError(f"nests deeper than {MAX_DEPTH} levels")
