"""Sound that another part of the program pushes: what a server was sent, a call's microphone."""

from __future__ import annotations

from collections.abc import Iterator

from musetalk_cli.clock import Clock
from musetalk_cli.handoff import Handoff, HandoffClosed
from musetalk_cli.types import AudioBlock, Delivery, Samples

ROOM_S = 1.0
"""Seconds of sound that may wait to be taken; what is ahead of its time waits further on, in the intake."""


class PushedSource:
    """Sound that is pushed in from any thread, without waiting.

    Args:
        sample_rate: Samples per second.
        channels: Channels of the sound.
        clock: Where time comes from.
    """

    delivery = Delivery.LIVE
    lost_samples = 0

    def __init__(self, sample_rate: int, channels: int, clock: Clock) -> None:
        self.sample_rate = sample_rate
        self.channels = channels
        self._clock = clock
        self._queue: Handoff[AudioBlock] = Handoff(
            max(1, round(ROOM_S * sample_rate)), lambda block: max(1, len(block.samples))
        )

    def offer(self, samples: Samples, *, ends: bool = False, segment: int | None = None) -> bool:
        """Add sound.

        Args:
            samples: float32 `[n, channels]`, full scale at 1.0; may be empty where a segment ends.
            ends: A segment ends with it.
            segment: The number of that segment, or None.

        Returns:
            False where there is no room for it yet: whoever has it must come again.

        Raises:
            HandoffClosed: The source was closed.
        """
        return self._queue.offer(AudioBlock(samples, self._clock.now(), ends, segment))

    def __iter__(self) -> Iterator[AudioBlock]:
        """Yield what was pushed, until the source is closed and empty."""
        yield from self._queue

    def discard(self) -> None:
        """Throw away what was pushed and not taken."""
        try:
            while self._queue.get(0) is not None:
                pass
        except HandoffClosed:
            return

    def close(self) -> None:
        """No more sound comes; what is inside is still given."""
        self._queue.close()
