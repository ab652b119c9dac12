"""Text for a terminal: what came from outside is made fit for it, and progress has a level of its own."""

from __future__ import annotations

import logging
import re
import unicodedata

PROGRESS = logging.INFO + 5
"""Level of a log line that says how far the work is: shown by default, and no warning."""

_JOINERS = "\u200c\u200d"
"""Zero-width characters that words of several scripts need; they move no cursor and turn nothing around."""
_RAW = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str, keep: str = "") -> str:
    r"""Show what a terminal would obey as an escape instead.

    Control characters (C0 with ESC, DEL, C1), format characters (bidirectional overrides and the like), line
    and paragraph separators and lone surrogates become `\n`, `\x1b`, `\u202e` or `\udc80`; letters of every
    script stay as they are.

    Args:
        text: Any text: a name, a path, a title from a file, an error message.
        keep: Characters that are meant, like the line ends of a traceback.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def counted(count: int, noun: str) -> str:
    """A count and what is counted: `1 core`, `2 cores`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


_SERVER = re.compile(
    r"\b(?!file:)([a-z][a-z0-9+.-]*://)(?:[^\s/?#@'\"]*@)?"
    r"(\[[^\]\s]*\]|[^\s/?#:'\"]*)(:\d+(?![^\s/?#'\"]))?([^\s'\"]+)?",
    re.IGNORECASE,
)
_ALMOST = re.compile(r"\b(rtmp\w*|srt|rtsps?|https?)(?:(?::(?!//)|//)[^\s'\"]+)", re.IGNORECASE)


def redacted(text: str) -> str:
    """Leave out of every URL what may be a secret: all but its scheme, its host and its port.

    What begins like the address of a server and is none, like `rtmp:/host/key`, keeps its scheme only.

    Args:
        text: Any text in which URLs may stand.
    """
    text = _SERVER.sub(lambda url: f"{url[1]}{url[2]}{url[3] or ''}{'/...' if url[4] else ''}", text)
    return _ALMOST.sub(r"\1:...", text)


_LONG = re.compile(r"(\S{150})\S{50,}(\S{100})")


def shortened(text: str) -> str:
    """Leave out the middle of every word of 300 characters and more: it would hide the rest of the text."""
    return _LONG.sub(r"\1...\2", text)


def _shown(character: str, keep: str) -> str:
    if character in keep or character in _JOINERS or unicodedata.category(character) not in _RAW:
        return character
    return character.encode("unicode_escape").decode("ascii")
