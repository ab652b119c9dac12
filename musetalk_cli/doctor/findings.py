"""What a check finds, and how checks are made: one after the other, each on its own, in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from musetalk_cli.errors import MuseTalkError, describe

Status = Literal["ok", "warning", "problem"]
LIMIT_S = 30.0
"""How long a check may take, on a busy machine: the slowest one imports PyTorch."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        name: What was looked at.
        status: `ok`: nothing is to be done. `warning`: something works less well, or not at all that may not
            be needed. `problem`: something is broken.
        detail: What was found.
        fix: What to type or to do; None where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    fix: str | None = None

    def as_json(self) -> dict[str, object]:
        """A dictionary of plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Attributes:
        name: What its finding is called where the check itself fails.
        look: Gives what it found.
    """

    name: str
    look: Callable[[], Iterable[Finding]]


def examine(checks: Iterable[Check], limit_s: float = LIMIT_S) -> Iterator[Finding]:
    """Make checks one after the other, and give what each finds as soon as it has.

    A check that raises, or takes too long, is a problem of that check and of no other.

    Args:
        checks: What is looked at.
        limit_s: How long each may take; one that takes longer goes on in a thread that nobody waits for.
    """
    for check in checks:
        found: list[Finding] = []
        failed: list[Exception] = []
        thread = threading.Thread(
            target=_look, args=(check, found, failed), name=f"doctor-{check.name}", daemon=True
        )
        thread.start()
        thread.join(limit_s)
        if thread.is_alive():
            fix = "Try again when the machine is less busy."
            yield Finding(check.name, "problem", f"The check took longer than {limit_s:g} s.", fix)
        elif failed:
            yield _failure(check.name, failed[0])
        else:
            yield from found


def _look(check: Check, found: list[Finding], failed: list[Exception]) -> None:
    try:
        found.extend(check.look())
    except Exception as error:
        failed.append(error)


def _failure(name: str, error: Exception) -> Finding:
    detail = describe(error)
    fix = error.hint if isinstance(error, MuseTalkError) else None
    return Finding(name, "problem", detail if detail.endswith(".") else f"{detail}.", fix)
