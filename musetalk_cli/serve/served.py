"""One session of the service: a stream with its sound, its viewers and its place among the speakers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from musetalk_cli.clock import Clock
from musetalk_cli.config import SilenceLevel
from musetalk_cli.errors import InputError, describe
from musetalk_cli.handoff import HandoffClosed
from musetalk_cli.live.observe import Outcome, Snapshot
from musetalk_cli.live.stream import Stream
from musetalk_cli.serve.broadcast import Broadcast
from musetalk_cli.serve.listener import SessionListener
from musetalk_cli.serve.metrics import Meters
from musetalk_cli.serve.naming import SessionLog, label_of
from musetalk_cli.serve.speakers import Speakers, Turn
from musetalk_cli.serve.spoken_file import SpokenFile
from musetalk_cli.sources.pushed import PushedSource
from musetalk_cli.types import Frame, Samples, StreamFormat

log = logging.getLogger(__name__)

Ended = Callable[["ServedSession", Outcome | None], None]


@dataclass(slots=True, eq=False)
class Parts:
    """What a session is made of, before it runs.

    Attributes:
        source: Where its sound is pushed.
        broadcast: Where its frames go.
        stop: Ends it at once.
        snapshot: How it goes, as it was told last.
    """

    source: PushedSource
    broadcast: Broadcast
    stop: threading.Event = field(default_factory=threading.Event)
    snapshot: Snapshot | None = None

    def watch(self, snapshot: Snapshot) -> None:
        """Told by the stream's watcher."""
        self.snapshot = snapshot


class ServedSession:
    """One face that speaks to its viewers. Safe to use from any thread; nothing here waits but `speak`.

    Args:
        name: What it is called in requests.
        avatar: Name of the avatar.
        client: Who began it: an address.
        parts: What it is made of.
        stream: The stream, which is opened and on its loop.
        speakers: Where its turn to speak is claimed.
        meters: Where its frames are counted.
        silence: The level that is silence.
        clock: Where time comes from.

    Attributes:
        id: What it is called in requests; who knows it may use it.
        avatar: Name of the avatar.
        client: Who began it.
        stream: Format of its frames and their sound.
        broadcast: Who watches it.
        log: What is said of it.
        finisher: Finishes it, once it has heard what waits for room elsewhere; from any thread.
    """

    def __init__(
        self,
        name: str,
        avatar: str,
        client: str,
        parts: Parts,
        stream: Stream,
        speakers: Speakers,
        meters: Meters,
        silence: SilenceLevel | None,
        clock: Clock,
    ) -> None:
        self.id = name
        self.log = SessionLog(log, self.label)
        self.avatar = avatar
        self.client = client
        self.stream: StreamFormat = stream.session.stream
        self.broadcast = parts.broadcast
        self._listener: SessionListener | None = None
        self.finisher: Callable[[], object] = self.finish
        self._parts = parts
        self._stream = stream
        self._turn = Turn(speakers, silence, clock, lambda: stream.unheard_s)
        self._speakers = speakers
        self._meters = meters
        self._answered = -1
        self._refusals = 0
        self._segment = 0
        # of which turn it is told, and what
        self._problem: tuple[int, str] | None = None
        self._clock = clock
        self._alone_since: float | None = clock.now()
        self._lock = threading.Lock()
        self._file = SpokenFile(self.label, self._take, self._lock, self._file_failed)
        self._over = threading.Event()
        self._error: str | None = None

    @property
    def label(self) -> str:
        """What it is called in the log."""
        return label_of(self.id)

    @property
    def snapshot(self) -> Snapshot | None:
        """How it goes, as it was told last; None in its first moments."""
        return self._parts.snapshot

    @property
    def refused(self) -> str | None:
        """Why its last speech was refused or ended early; None once it speaks again."""
        problem = self._problem
        return problem[1] if problem is not None and problem[0] == self._turn.taken else None

    @property
    def is_over(self) -> bool:
        """True once it has ended."""
        return self._over.is_set()

    @property
    def is_stopped(self) -> bool:
        """True once it was told to end at once."""
        return self._parts.stop.is_set()

    def add_listener(self, listener: SessionListener) -> None:
        """Tell somebody what happens besides frames; where it has ended, at once."""
        self._listener = listener
        if self.is_over:
            listener.ended(self._error)

    # -- sound -------------------------------------------------------------------------------------------

    def hear(self, samples: Samples, *, ends: bool = False, segment: int | None = None) -> bool:
        """Take sound, as it is spoken or ahead of its time.

        What is refused is taken and forgotten, up to a pause or the end of its segment.

        Args:
            samples: float32 `[n, channels]` at the session's rate.
            ends: A segment ends with it.
            segment: The number that its sender gives the segment it is of, from 0; None for what has none.

        Returns:
            False where there is no room for it yet: it must come again.
        """
        with self._lock:
            is_taken = self._take(samples, ends, segment)
            if is_taken and segment is not None:
                self._segment = segment + ends
            return is_taken

    def _take(self, samples: Samples, ends: bool, segment: int | None = None) -> bool:
        if self._over.is_set():
            return True
        if not self._turn.admit(samples, self.stream.sample_rate, ends=ends):
            self._refuse(segment)
            return True
        try:
            return self._parts.source.offer(samples, ends=ends, segment=segment)
        except HandoffClosed:
            return True

    def listen_to_microphone(self, samples: Samples) -> bool:
        """Take sound of a microphone, as `hear`; while a file is spoken it is forgotten."""
        return self._file.is_spoken or self.hear(samples)

    def _file_failed(self, why: str) -> None:
        self.log.warning("%s", why)
        self._problem = self._turn.taken, why

    def _refuse(self, segment: int | None) -> None:
        """Tell of a refusal, once."""
        refusal = self._speakers.refusal()
        self._problem = self._turn.taken, refusal.message
        if self._turn.refused == self._refusals:
            return
        self._refusals = self._turn.refused
        self._meters.refused.labels("speech").inc()
        if self._listener is not None:
            self._listener.refused(refusal, segment)

    def check_may_speak(self) -> None:
        """Refuse what `speak` would refuse now.

        Raises:
            RefusedError: All places of speakers are taken.
            BusyError: Another file is being spoken.
        """
        self._file.check_free()
        self._turn.check()

    def speak(self, blocks: Iterable[Samples]) -> None:
        """Speak sound from its start, as fast as it can be; the rest of it comes from a thread of its own.

        Args:
            blocks: float32 `[n, channels]` each, at the session's rate. The first is taken in the caller's
                thread, so that what is wrong with a file is raised here.

        Raises:
            NotFoundError: The session has ended.
            RefusedError: All places of speakers are taken.
            BusyError: Another file is being spoken.
            MuseTalkError: The sound cannot be read.
        """
        with self._lock:
            self.check_may_speak()
            is_new = self._turn.claim()
            begin = self._file.reserve()
        try:
            begin(blocks)
        except BaseException:
            if is_new:
                self._turn.give_back()
            raise

    # -- what else is asked of it ------------------------------------------------------------------------

    def interrupt(self, segment: int | None = None) -> None:
        """Discard everything that was said and not yet shown.

        Args:
            segment: The number of the segment that will be sent next; None is the one that is being sent.
        """
        with self._lock:
            self._segment = self._segment if segment is None else segment
            self._file.stop()
            self._stream.interrupt()
            self._turn.interrupt()
        if self._listener is not None:
            self._listener.interrupted(self._segment)

    def finish(self) -> None:
        """Take no more sound; what was said is still shown, then the session ends."""
        self._file.stop()
        self._parts.source.close()

    def stop(self) -> None:
        """End at once."""
        self._file.stop()
        self._parts.stop.set()
        self._parts.source.close()

    def shown(self, frame: Frame) -> None:
        """A frame was shown; told by the broadcast."""
        self._turn.shown(frame)
        utterance = frame.request.utterance
        answers = utterance is not None and frame.fate.is_made and utterance.number > self._answered
        if utterance is not None and answers:
            self._answered = utterance.number
        self._meters.shown(frame, self._clock.now(), answers=answers)

    def unwatched_s(self) -> float:
        """For how many seconds nobody has watched it; asked from time to time."""
        now = self._clock.now()
        if self.broadcast.viewers:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        return 0.0 if self._alone_since is None else now - self._alone_since

    def start(self, ended: Ended) -> None:
        """Wait for its end in a thread of its own; then tell.

        Args:
            ended: Told the figures; None where it failed.
        """
        threading.Thread(target=self._run, args=(ended,), name=f"session {self.label}", daemon=True).start()

    def _run(self, ended: Ended) -> None:
        outcome, failures = None, []
        try:
            outcome = self._stream.join()
            failures = [*outcome.failures]
        except BaseException as error:
            # one that ended before its first frame has none, and that is no failure
            is_short = self._parts.stop.is_set() or isinstance(error, InputError)
            failures = [] if is_short else [error]
        for failure in failures:
            self.log.warning("failed: %s", describe(failure))
        self._error = describe(failures[0]) if failures else None
        self._over.set()
        self._file.stop()
        self._turn.end()
        if self._listener is not None:
            self._listener.ended(self._error)
        ended(self, outcome)
