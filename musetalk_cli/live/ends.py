"""The two ends of a stream, and who stands at them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from musetalk_cli.live.watcher import Watch
from musetalk_cli.types import AudioSource, Sink


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Where the sound of a stream comes from and where its frames go.

    Attributes:
        source: The sound.
        sinks: All get every frame.
        stop: Set from outside to end the stream early; what was made so far is completed.
        watch: Told how the stream goes, or None.
    """

    source: AudioSource
    sinks: Sequence[Sink]
    stop: threading.Event
    watch: Watch | None = None
