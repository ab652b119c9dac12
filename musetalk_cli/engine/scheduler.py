"""The order of work: whose hop is encoded and whose frames are made next.

Start-time fair queueing: sessions with work share the device in proportion to their frame rates. One that
comes late or has been idle gets its share from then on, and none keeps another waiting.
"""

from __future__ import annotations

from musetalk_cli.engine.session import Session
from musetalk_cli.types import FrameRequest

BATCHES_FINISHED = 4
"""Largest batches of finished frames a session holds before it is passed over."""
FREE_FRAMES = 4
"""Largest batches of frames that one step may deliver, where most of them need no model work."""

Batch = list[tuple[Session, FrameRequest]]


class Scheduler:
    """Decides between sessions, by a time that passes as frames are served.

    Args:
        room: Frames in the largest batch.

    Attributes:
        sessions: Those that take part, in the order they came.
    """

    def __init__(self, room: int) -> None:
        self.sessions: list[Session] = []
        self._room = room
        self._served = 0.0

    def admit(self) -> None:
        """Let sessions that have got work again start at the time that has been served."""
        for session in self.sessions:
            has_work = bool(session.ready) or session.hop_ready() is not None
            busy = has_work and self._takes_frames(session)
            if busy and not session.busy:
                session.served_until = max(session.served_until, self._served)
            session.busy = busy

    def next_hop(self, *, to_fill: bool) -> Session | None:
        """The session whose due hop is encoded next, among those short of requests.

        Args:
            to_fill: Encode only while the requests of all sessions do not fill the largest batch.
        """
        if to_fill and sum(len(session.ready) for session in self.sessions if session.busy) >= self._room:
            return None
        waiting = [
            session
            for session in self.sessions
            if session.busy and len(session.ready) < self._room and session.hop_ready() is not None
        ]
        return min(waiting, key=lambda session: _deadline(session, len(session.ready)), default=None)

    def take_batch(self) -> Batch:
        """Up to the largest batch of frames to make, earliest deadline first, and the others between them."""
        batch: Batch = []
        made = 0
        hungry = [session for session in self.sessions if session.busy and session.ready]
        while hungry and made < self._room and len(batch) < FREE_FRAMES * self._room:
            session = min(hungry, key=_deadline)
            self._served = max(self._served, session.served_until)
            session.served_until = _deadline(session)
            request = session.ready.popleft()
            batch.append((session, request))
            made += request.tokens is not None
            if not session.ready:
                hungry.remove(session)
        return batch

    def _takes_frames(self, session: Session) -> bool:
        """False while nobody takes a session's finished frames: it then has no work."""
        return len(session.finished) < BATCHES_FINISHED * self._room


def _deadline(session: Session, ahead: int = 0) -> float:
    """When a session's next frame is due, or the one `ahead` of it, in served time."""
    return session.served_until + float((ahead + 1) / session.timeline.fps)
