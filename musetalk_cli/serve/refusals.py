"""What the service refuses though nothing is wrong with what was asked: there is no room now."""

from __future__ import annotations

from musetalk_cli.errors import MuseTalkError


class RefusedError(MuseTalkError):
    """There is no room for it now, and may be later."""


class NotFoundError(MuseTalkError):
    """What was named is not there."""


class BusyError(MuseTalkError):
    """It is in the middle of something that excludes what was asked."""
