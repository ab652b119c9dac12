"""Watching a stream in a thread of its own: a terminal that takes nothing holds up nobody."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from musetalk_cli.live.observe import Snapshot

log = logging.getLogger(__name__)

EVERY_S = 0.25
"""How often a snapshot is taken. Wall time: who watches does so in it, whatever clock the stream has."""
END_S = 2.0
"""How long a watcher that stands still may hold up the end of a stream."""

Watch = Callable[[Snapshot], None]
"""Told how a stream goes, a few times a second and at its end; it may take as long as it likes."""


class Watcher:
    """Tells how a stream goes, on a timer.

    Args:
        snapshot: How it goes, now.
        watch: Who is told; None where the snapshots are taken for the trace alone.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], watch: Watch | None) -> None:
        self._snapshot = snapshot
        self._watch = watch
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Tell a last time, and end; a watcher that stands still is left behind."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(END_S)

    def _run(self) -> None:
        try:
            while not self._ended.wait(EVERY_S):
                self._tell()
            self._tell()
        except Exception as error:
            log.warning("Watching ended, and the stream goes on: %s", error)
            log.debug("Where watching ended:", exc_info=error)

    def _tell(self) -> None:
        snapshot = self._snapshot()
        if self._watch is not None:
            self._watch(snapshot)
