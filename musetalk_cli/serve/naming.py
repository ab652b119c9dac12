"""What a session is called, in requests and in the log."""

from __future__ import annotations

import logging
import secrets
from collections.abc import MutableMapping
from typing import Any


def new_id() -> str:
    """An identifier that cannot be guessed: who has it may use the session."""
    return secrets.token_urlsafe(16)


def label_of(name: str) -> str:
    """The part of a session's identifier that may stand in a log."""
    return name[:8]


class SessionLog(logging.LoggerAdapter):  # type: ignore[type-arg] # Python 3.10 has no LoggerAdapter[Logger]
    """Names the session in every line: as text, and as a field for logs that are collected.

    Args:
        log: Where it is said.
        label: What the session is called.
    """

    def __init__(self, log: logging.Logger, label: str) -> None:
        super().__init__(log, {"session": label})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401 - as its base has it
        """Put the session in front."""
        label = None if self.extra is None else self.extra["session"]
        return f"session {label}: {msg}", {**kwargs, "extra": self.extra}
