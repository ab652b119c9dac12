"""A file that a session speaks: pushed as there is room, in a thread of its own, until an interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator

from musetalk_cli.errors import describe
from musetalk_cli.serve.refusals import BusyError
from musetalk_cli.types import Samples

WAIT_S = 0.05
"""How soon sound that found no room comes again."""
Take = Callable[[Samples, bool], bool]
"""Takes sound, and whether a segment ends with it; False where there is no room yet."""


class SpokenFile:
    """The one file that a session may speak at a time.

    Args:
        label: What messages call the session.
        take: Takes its sound; called with the lock.
        lock: Held by an interrupt too, so that one lies before or after a block and never in it.
        failed: Told why a file ended early.
    """

    def __init__(self, label: str, take: Take, lock: threading.Lock, failed: Callable[[str], None]) -> None:
        self._label = label
        self._failed = failed
        self._take = take
        self._lock = lock
        # set where the file is to end: it gives no sound any more, though its thread may not know yet
        self._stops: threading.Event | None = None

    @property
    def is_spoken(self) -> bool:
        """True while a file is spoken, up to the last of its sound that was taken."""
        return (stops := self._stops) is not None and not stops.is_set()

    def check_free(self) -> None:
        """Refuse a second file.

        Raises:
            BusyError: One is being spoken.
        """
        if self.is_spoken:
            raise BusyError("Another file is being spoken.", "Interrupt it first, or wait for its end.")

    def stop(self) -> None:
        """End the file, without waiting."""
        if (stops := self._stops) is not None:
            stops.set()

    def reserve(self) -> Callable[[Iterable[Samples]], None]:
        """Take the place, with the lock; what is returned begins with the sound, without it."""
        self._stops = stops = threading.Event()

        def begin(blocks: Iterable[Samples]) -> None:
            coming = iter(blocks)
            try:
                first = next(coming, None)
            except BaseException:
                stops.set()
                raise
            threading.Thread(
                target=self._speak, args=(first, coming, stops), name=f"file of {self._label}", daemon=True
            ).start()

        return begin

    def _speak(self, first: Samples | None, coming: Iterator[Samples], stops: threading.Event) -> None:
        """Push the sound; a file that fails on the way is spoken up to there."""
        block = first
        try:
            while block is not None:
                following = next(coming, None)
                if not self._push(block, stops, ends=following is None):
                    return
                block = following
        except Exception as error:
            self._failed(f"The file ended early: {describe(error)}")
            if first is not None:
                self._push(first[:0], stops, ends=True)
        finally:
            stops.set()
            if isinstance(coming, Generator):
                coming.close()

    def _push(self, block: Samples, stops: threading.Event, *, ends: bool) -> bool:
        """Give some sound, waiting for room; False where the file is to end."""
        while True:
            with self._lock:
                if stops.is_set():
                    return False
                if self._take(block, ends):
                    return True
            if stops.wait(WAIT_S):
                return False
