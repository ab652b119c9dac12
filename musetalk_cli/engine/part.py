"""A part of a recording: frames that one session makes as another would that makes them all."""

from __future__ import annotations

from dataclasses import dataclass

from musetalk_cli.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Part:
    """Frames of a recording that are made here; the others are made elsewhere.

    A session of a part hears the recording from its begin and plans every frame. So the voice gate, the
    source frames, the encoder's windows and the batches are those of the whole, and the part's frames are
    the same to the last bit. What no frame of it needs is planned and not computed.

    Attributes:
        first: The first frame.
        stop: One past the last; None is the end of the sound.
    """

    first: int = 0
    stop: int | None = None

    def holds(self, frame: int) -> bool:
        """True for a frame of the part."""
        return self.first <= frame and (self.stop is None or frame < self.stop)

    def ends_with(self, frame: int) -> bool:
        """True for its last frame, and for those after it."""
        return self.stop is not None and frame + 1 >= self.stop

    def hears(self, frames: range, end_row: int, timeline: Timeline, batch_span: int) -> bool:
        """True where the windows of a hop are to be encoded.

        Args:
            frames: Frames of the hop. Those after them may hear its windows too.
            end_row: One past the last row of its windows.
            timeline: Index arithmetic at the frame rate.
            batch_span: How far apart two frames of one batch can be: a batch is made with all of its frames.
        """
        is_after = self.stop is not None and frames.start >= self.stop + batch_span
        return not is_after and timeline.first_row(self.first - batch_span) < end_row


WHOLE = Part()
"""All frames."""
