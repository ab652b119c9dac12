"""What happens in a session besides frames, for whoever began it."""

from __future__ import annotations

from typing import Protocol

from musetalk_cli.serve.refusals import RefusedError


class SessionListener(Protocol):
    """Whoever listens to what happens in a session besides frames; from any thread, and never waits.

    The end may be told twice, where it comes while somebody begins to listen.
    """

    def refused(self, refusal: RefusedError, segment: int | None) -> None:
        """Its speech was refused; in which segment, by the sender's number."""

    def interrupted(self, segment: int) -> None:
        """What was said and not shown was discarded: all of what was sent before this segment."""

    def ended(self, error: str | None) -> None:
        """It is over; why, where it has failed."""
