"""What the answers of a model hub say, and the bytes in them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from musetalk_cli.errors import first_line
from musetalk_cli.nets.patience import PassingError

TIMEOUT_S = 30.0
"""How long the hub may say nothing."""
_BLOCK = 1 << 18
_SIZE_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Remote:
    """What the hub says of a file.

    Attributes:
        bytes: Its size.
        commit: The commit that has it, or None where it does not say.
        etag: Its tag: the SHA-256 of a large file, of a small one the SHA-1 that git computes; else anything.
    """

    bytes: int
    commit: str | None
    etag: str


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a file, as they come.

    Attributes:
        start: Where they begin, which is 0 where the hub takes no position.
        etag: The tag of the file they are of, as `Remote` has it; empty where it does not say.
        whole: Bytes of the whole file; None where it does not say.
        blocks: They, from there on. What ends too early is not told apart from the end.
    """

    start: int
    etag: str
    whole: int | None
    blocks: Iterator[bytes]


def blocks_of(answer: Any) -> Iterator[bytes]:  # noqa: ANN401 - an answer of http.client
    """The bytes that come.

    Raises:
        PassingError: The connection broke, or nothing came for long.
    """
    while True:
        try:
            block = answer.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise PassingError(reason(error)) from error
        if not block:
            return
        yield block


def headers_of(answer: Any) -> dict[str, str]:  # noqa: ANN401 - an answer of http.client
    """Headers by their names in small letters."""
    return {key.lower(): value for key, value in answer.headers.items()}


def size_of(text: str) -> int | None:
    """A size; None where it is none that a file has."""
    return int(text) if text.isdecimal() and len(text) <= _SIZE_DIGITS else None


def tag_of(said: dict[str, str]) -> str:
    """The tag of a file in headers, without its quotes; empty where they have none."""
    return (said.get("x-linked-etag") or said.get("etag", "")).removeprefix("W/").strip('"')


def reason(error: object) -> str:
    """Why something did not come, as the end of a sentence."""
    if isinstance(error, TimeoutError):
        return f"it said nothing for {TIMEOUT_S:.0f} s"
    if isinstance(error, socket.gaierror):
        return "its name is not known here, so there is no network or no such host"
    if isinstance(error, OSError) and error.strerror:
        return f"it could not be reached ({error.strerror})"
    said = first_line(error) if isinstance(error, BaseException) else str(error)
    return f"the connection broke ({said})"
