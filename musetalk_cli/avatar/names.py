"""Names of avatars: what may be one, and which folder one leads to.

A name is written in Unicode's composed form (NFC). Spellings that differ in case or composition are the same
name, as they are the same folder on most systems; where folders of several spellings exist, the exact one is
meant.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from musetalk_cli.avatar.layout import META_FILE
from musetalk_cli.errors import AvatarError
from musetalk_cli.text import printable

MAX_NAME_BYTES = 200
"""UTF-8 bytes of a name: file systems allow 255, and work in progress lies beside it under longer names."""

_RESERVED = re.compile(
    r"(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE
)
_PUNCTUATION = "._- "
_JOINERS = "\u200c\u200d"
_SHOWN = 40
_HINT = (
    "Use letters and digits of any script, '.', '_', '-' and spaces inside, starting with a letter, a digit "
    "or '_'."
)


def validate_name(name: str) -> str:
    """The name in composed form (NFC), where it can name an avatar and its folder on any system.

    Raises:
        AvatarError: It cannot; the message says why.
    """
    composed = unicodedata.normalize("NFC", name)
    if (reason := _objection(composed)) is not None:
        shown = composed if len(composed) <= _SHOWN else f"{composed[:_SHOWN]}..."
        raise AvatarError(f"'{printable(shown)}' cannot name an avatar: {reason}.", _HINT)
    return composed


def is_name(name: str) -> bool:
    """True where the text can name an avatar."""
    return _objection(unicodedata.normalize("NFC", name)) is None


def same_name(one: str, other: str) -> bool:
    """True for two spellings of one name: by canonical caseless matching (Unicode, D145)."""
    return _key(one) == _key(other)


def quoted(name: str) -> str:
    """A name as it is typed in a shell."""
    return shlex.quote(name)


def folders_named(folder: Path, name: str, prefix: str = "", suffix: str = "") -> Iterator[Path]:
    """The entries of a folder that are named so, in any spelling, the exact one first.

    Args:
        folder: Where they are; it need not be there.
        name: The name.
        prefix: What stands before it in the entry's own name.
        suffix: What stands behind it.
    """
    exact, key = folder / f"{prefix}{name}{suffix}", _key(name)
    if exact.exists():
        yield exact
    try:
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:  # it can be entered but not listed: only the exact spelling is found
        entries = []
    for entry in entries:
        if entry != exact and entry.name.startswith(prefix) and entry.name.endswith(suffix):
            inner = entry.name[len(prefix) : len(entry.name) - len(suffix)]
            if _key(inner) == key:
                yield entry


def find_folder(avatars_dir: Path, name: str) -> Path | None:
    """The folder of an avatar, whatever the spelling; None where there is none.

    Raises:
        AvatarError: The name is not allowed, or fits several avatars and is exactly none of them; or their
            folder cannot be read.
    """
    name = validate_name(name)
    try:
        found = [path for path in folders_named(avatars_dir, name) if (path / META_FILE).is_file()]
    except OSError as error:
        raise AvatarError(
            f"{avatars_dir} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    composed = [path for path in found if unicodedata.normalize("NFC", path.name) == name]
    if composed or len(found) <= 1:
        return next(iter(composed or found), None)
    spellings = ", ".join(unicodedata.normalize("NFC", path.name) for path in found)
    raise AvatarError(f"{name} may be any of the avatars {spellings}.", "Write it exactly.")


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFD", folded)


def _objection(name: str) -> str | None:
    """Why a composed text cannot name an avatar; None where it can."""
    if not name:
        return "it is empty"
    return _wrong_character(name) or _wrong_place(name) or _wrong_whole(name)


def _wrong_character(name: str) -> str | None:
    for number, character in enumerate(name):
        category, shown = unicodedata.category(character), f"U+{ord(character):04X}"
        if category == "Cs":
            return "it is not valid text in Unicode"
        if character in "/\\":
            return f"'{character}' separates folders, so it would leave its own"
        if character in _JOINERS and _joins(name, number):
            continue
        if category in {"Cc", "Cf", "Zl", "Zp"}:
            return f"it holds the control character {shown}"
        if category[0] not in "LMN" and character not in _PUNCTUATION:
            kind = "another space than the ordinary one" if category == "Zs" else f"'{character}'"
            return f"it holds {kind} ({shown})"
    return None


def _joins(name: str, number: int) -> bool:
    """True for a zero-width joiner between letters, where scripts need it."""
    around = (name[number - 1 : number], name[number + 1 : number + 2])
    return all(near and unicodedata.category(near)[0] in "LM" for near in around)


def _wrong_place(name: str) -> str | None:
    first, last = name[0], name[-1]
    if first == ".":
        return "a dot in front hides its folder"
    if first == " " or last == " ":
        return "a space is at its beginning or end"
    if first == "-":
        return "a '-' in front would be taken for an option"
    if last == ".":
        return "a dot at the end is dropped by some systems"
    return "it starts with a combining mark" if unicodedata.category(first)[0] == "M" else None


def _wrong_whole(name: str) -> str | None:
    stem = name.split(".", maxsplit=1)[0].rstrip(" ")
    if _RESERVED.fullmatch(stem):
        return f"{stem} is reserved for a device on Windows"
    size = len(name.encode())
    return f"it takes {size} bytes, and {MAX_NAME_BYTES} are the most" if size > MAX_NAME_BYTES else None
