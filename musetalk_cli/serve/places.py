"""Whether there is room for one more session."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from musetalk_cli.errors import InputError
from musetalk_cli.serve.refusals import RefusedError


def check_room(clients: Sequence[str], client: str, most: int, most_per_client: int) -> None:
    """Refuse a session that there is no room for.

    Args:
        clients: Whose sessions there are, those among them that are being opened.
        client: Who asks for one more.
        most: Sessions that there may be.
        most_per_client: Sessions that one client may have.

    Raises:
        RefusedError: There is none.
    """
    if len(clients) >= most:
        raise RefusedError(
            f"All {most} sessions of this service are taken.",
            "Try again when one has ended; --max-sessions says how many there are.",
        )
    if clients.count(client) >= most_per_client:
        raise RefusedError(
            f"{client} has {most_per_client} sessions, as many as one may have.", "End one of them first."
        )


def check_rate(fps: Fraction | None, most: Fraction) -> None:
    """Refuse more frames per second than those that speakers are counted by; None is as many.

    Raises:
        InputError: It is more.
    """
    if fps is not None and fps > most:
        raise InputError(
            f"{float(fps):g} frames per second are more than the {float(most):g} of this service.",
            "Ask for no more, or start it with more --fps.",
        )
