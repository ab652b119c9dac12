"""Who has a session, who is about to get one, and whether there is room for one more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import TYPE_CHECKING

from musetalk_cli.errors import InputError
from musetalk_cli.serve.refusals import NotFoundError, RefusedError

if TYPE_CHECKING:
    from musetalk_cli.serve.served import ServedSession


class SessionRegistry:
    """The sessions of a service, and those that are being opened; for any thread.

    Args:
        most_per_client: Sessions that one client may have.
    """

    def __init__(self, most_per_client: int) -> None:
        self._most_per_client = most_per_client
        self._sessions: dict[str, ServedSession] = {}
        # clients whose sessions are being opened, each as often
        self._opening: list[str] = []
        self._closed = False
        self._lock = threading.Lock()
        self._none_left = threading.Condition(self._lock)

    @property
    def closed(self) -> bool:
        """Whether no session shall begin any more."""
        return self._closed

    @property
    def sessions(self) -> list[ServedSession]:
        """Those that run."""
        return list(self._sessions.values())

    def session(self, name: str) -> ServedSession:
        """A session by its identifier.

        Raises:
            NotFoundError: There is none, or it has ended.
        """
        session = self._sessions.get(name)
        if session is None or session.is_stopped:
            raise NotFoundError("There is no such session.", "It may have ended; begin a new one.")
        return session

    def reserve(self, client: str, most: int) -> None:
        """Keep a place for a session that is about to be opened; `take` or `give_up` follows.

        Args:
            client: Who asks.
            most: Sessions that there may be.

        Raises:
            RefusedError: There is none.
        """
        with self._lock:
            clients = [each.client for each in self._sessions.values()] + self._opening
            check_room(clients, client, most, self._most_per_client)
            self._opening.append(client)

    def give_up(self, client: str) -> None:
        """Free the place of a client whose session could not be opened."""
        with self._lock:
            self._opening.remove(client)
            self._none_left.notify_all()

    def take(self, session: ServedSession) -> None:
        """Put a session into the place of its client. It ends at once where all shall."""
        with self._lock:
            self._opening.remove(session.client)
            self._sessions[session.id] = session
            if self._closed:  # since it was looked at
                session.stop()

    def leave(self, session: ServedSession, count: Callable[[], None]) -> None:
        """Free the place of a session that has ended.

        Args:
            session: Which.
            count: Adds its figures to those of all, at the same moment: nobody sees them twice or not at all.
        """
        with self._lock:
            self._sessions.pop(session.id, None)
            count()
            self._none_left.notify_all()

    @contextmanager
    def still(self) -> Iterator[list[ServedSession]]:
        """Those that run, of which none leaves while the statement lasts."""
        with self._lock:
            yield self.sessions

    def close(self) -> None:
        """Let no session begin any more."""
        with self._lock:
            self._closed = True

    def wait(self, seconds: float) -> None:
        """Until there is no session and none is being opened, so long at the most, or an interrupt comes."""
        with self._none_left, suppress(KeyboardInterrupt):
            self._none_left.wait_for(lambda: not self._sessions and not self._opening, seconds)


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
