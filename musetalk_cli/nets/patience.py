"""What passes by itself is tried again: how often, and after which waits."""

from __future__ import annotations

import email.utils
import logging
import time
from collections.abc import Callable
from typing import Any

from musetalk_cli.errors import ModelError
from musetalk_cli.text import PROGRESS

TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 6, 1.0, 16.0
"""How often something is tried that brings nothing, and the waits between: each twice the one before."""
LONGEST_ASKED_WAIT_S = 120.0
"""How long `Retry-After` may ask to wait; where it asks for more, there is no other try."""
SAID_FROM_S = 4.0
"""Seconds from which on a wait is told: who sees nothing for longer takes it for the end."""

log = logging.getLogger(__name__)


class PassingError(Exception):
    """Something went wrong that may go well the next time.

    Args:
        message: What, without a full stop.
        wait: Seconds that the hub asks to wait, or None.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Patience:
    """Counts failures in a row, and waits after each.

    Args:
        sleep: Waits for so many seconds.
        failed: What is raised in the end, from the words why.
    """

    def __init__(self, sleep: Callable[[float], None], failed: Callable[[str], ModelError]) -> None:
        self._sleep, self._failed = sleep, failed
        self._failures = 0

    def reset(self) -> None:
        """Something came."""
        self._failures = 0

    def after(self, fault: PassingError) -> None:
        """Wait before the next try.

        Raises:
            ModelError: It failed often enough, or is asked to wait too long.
        """
        self._failures += 1
        if self._failures >= TRIES:
            raise self._failed(str(fault)) from fault
        wait = min(FIRST_WAIT_S * 2 ** (self._failures - 1), LONGEST_WAIT_S)
        asked = fault.wait or 0.0
        if asked > LONGEST_ASKED_WAIT_S:
            raise self._failed(f"{fault}, and asks to wait {asked:.0f} s") from fault
        wait = max(wait, asked)
        if wait >= SAID_FROM_S:
            log.log(PROGRESS, "The hub is asked again in %.0f s, because %s.", wait, fault)
        self._sleep(wait)


def asked_wait(answer: Any) -> float | None:  # noqa: ANN401 - an answer of http.client
    """Seconds that `Retry-After` asks for, which is a number or a date (RFC 9110, 10.2.3)."""
    text = (answer.headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
