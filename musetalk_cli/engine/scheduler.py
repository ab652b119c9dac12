"""The order of work: whose hop is encoded and whose frames are made next.

Start-time fair queueing: every frame carries a start tag, the time in served seconds at which its session
would have begun it alone, and the smallest start tag goes first. Sessions with work so share the device in
proportion to their frame rates; one that comes late or has been idle starts at the time that has been served
by then, so it gets its share from then on, and nothing for the past.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from musetalk_cli.engine.session import Session
from musetalk_cli.types import FrameRequest

BATCHES_FINISHED = 2
"""Largest batches of finished frames a session holds before it is passed over."""
FIRST_FRAMES = 2
"""Frames of a session that are made at once where somebody waits for one, on a CPU."""
FREE_FRAMES = 4
"""Largest batches of frames that one step may deliver, where most of them need no model work."""

Batch = list[tuple[Session, FrameRequest]]


@dataclass(slots=True, eq=False)
class _Entry:
    """What the scheduler keeps of a session.

    Attributes:
        session: Whose entry it is.
        period: Served seconds of one frame.
        start: Start tag of its next frame, in served seconds.
        busy: True while it has work and somebody takes its frames.
    """

    session: Session
    period: float = field(init=False)
    start: float = 0.0
    busy: bool = False

    def __post_init__(self) -> None:
        self.period = float(1 / self.session.timeline.fps)


class Scheduler:
    """Decides between sessions, by a time that passes as frames are served.

    Sessions may be added and removed from any thread; everything else belongs to the device's thread.

    Args:
        sizes: Frames that a batch may have, ascending.
        seconds: How long a step with a batch of so many takes, as far as it was measured.
        first_frames: Frames of a session that are made at once where somebody waits for one.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        seconds: Callable[[int], float] = lambda _: 0.0,
        first_frames: int = FIRST_FRAMES,
    ) -> None:
        self._seconds = seconds
        self._first_frames = first_frames
        self._entries: tuple[_Entry, ...] = ()
        self.take_sizes(sizes)
        self._served = 0.0

    def __iter__(self) -> Iterator[Session]:
        """The sessions, in the order they came."""
        return (entry.session for entry in self._entries)

    def take_sizes(self, sizes: Sequence[int]) -> None:
        """Take batches of other sizes from now on."""
        self._sizes = tuple(sizes)
        self._room = self._sizes[-1]

    def add(self, session: Session) -> None:
        """Let a session take part."""
        # replaced as a whole, so that the device's thread is not disturbed while it goes through them
        self._entries = (*self._entries, _Entry(session))

    def remove(self, session: Session) -> bool:
        """Let a session go; False where it took no part."""
        entries = self._entries
        self._entries = tuple(entry for entry in entries if entry.session is not session)
        return len(self._entries) < len(entries)

    def admit(self) -> None:
        """Let sessions that have got work again start at the time that has been served."""
        for entry in self._entries:
            has_work = entry.session.waiting > 0 or entry.session.hop_ready() is not None
            is_taken = entry.session.untaken < BATCHES_FINISHED * self._room
            busy = has_work and is_taken and entry.session.failure is None
            if busy and not entry.busy:
                entry.start = max(entry.start, self._served)
            entry.busy = busy

    def next_hop(self, *, to_fill: bool) -> Session | None:
        """The session whose due hop is planned next, among those short of requests.

        One that rests comes first, however many requests of others there are: its hop costs no model work.

        Args:
            to_fill: Encode only while the requests of all sessions do not fill the next batch.
        """
        busy = [entry for entry in self._entries if entry.busy and entry.session.failure is None]
        resting = next((entry for entry in busy if _rests(entry.session)), None)
        if resting is not None:
            return resting.session
        most = self._most(busy)
        short = [entry for entry in busy if self._is_short(entry.session, most)]
        if to_fill and sum(entry.session.waiting for entry in busy) >= most:
            short = [entry for entry in short if entry.session.options.fills_batches]
        # the first frame of the hop comes after those that wait already
        first = min(short, key=lambda entry: entry.start + entry.session.waiting * entry.period, default=None)
        return None if first is None else first.session

    def _is_short(self, session: Session, most: int) -> bool:
        """True where a session has a due hop, and fewer frames than it could give to the next batch."""
        if session.hop_ready() is None:
            return False
        if session.options.fills_batches:
            return not session.fills(self._room, FREE_FRAMES * self._room)
        return session.waiting < most

    def _holds_back(self, session: Session) -> bool:
        """True where a session's frames wait for more of them to fill the batch."""
        if not session.options.fills_batches or session.is_planned:
            return False
        return not session.fills(self._room, FREE_FRAMES * self._room)

    def _most(self, entries: Sequence[_Entry]) -> int:
        """Frames of the next batch: as many as are made before a session has nothing left to show.

        Where one has nothing now, the first frames of each session are made at once.
        """
        spare = min((entry.session.spare_s for entry in entries), default=math.inf)
        first = self._first_frames * len(entries)
        fits = [size for size in self._sizes if size <= first or self._seconds(size) <= spare]
        return max(fits, default=self._sizes[0])

    def take_batch(self) -> Batch:
        """The next batch of frames to make, and the others between them, smallest start tag first."""
        batch: Batch = []
        made = 0
        hungry = [
            entry
            for entry in self._entries
            if entry.busy and entry.session.waiting and not entry.session.failure
        ]
        hungry = [entry for entry in hungry if not self._holds_back(entry.session)]
        most = self._most(hungry)
        while hungry and len(batch) < FREE_FRAMES * self._room:
            entry = min(hungry, key=lambda each: each.start)
            if made >= most and entry.session.next_is_made:
                # what takes no model work does not wait for those whose work fills the next batch
                hungry.remove(entry)
                continue
            # it never goes back, though a session that had nothing to be made for a while has an older tag
            self._served = max(self._served, entry.start)
            entry.start += entry.period
            request = entry.session.next_request()
            batch.append((entry.session, request))
            made += request.fate.is_made
            if not entry.session.waiting:
                hungry.remove(entry)
        return batch


def _rests(session: Session) -> bool:
    """True where nothing of a session waits to be made, and its next hop is due and silent."""
    hop = None if session.waiting or session.hop_ready() is None else session.hearing.due()
    return hop is not None and hop.is_silent
