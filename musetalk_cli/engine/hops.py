"""Hops: which frames are made together, and how much sound they wait for.

The voice gate says where an utterance begins, and the grid of hops begins there: a short first hop, so that
the first frames need not wait, each next one twice as long, up to `--chunk`. So hops are functions of the
sound alone, whatever the size of the blocks in which it came. Silence has no hops: its frames need no model
work, and each is planned as soon as it is known that nothing is said in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile

from torch import Tensor

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.voice_gate import Fade, Speech
from musetalk_cli.engine.windows import Encode, FeatureStream
from musetalk_cli.timeline import ROWS_PER_WINDOW, SAMPLE_RATE, SAMPLES_PER_ROW, Timeline
from musetalk_cli.types import Samples


@dataclass(frozen=True, slots=True)
class Hop:
    """Frames that are planned together.

    Attributes:
        number: From 0.
        frames: Which ones.
        speech: What each of them shows of an utterance; all of one utterance, or of none.
        begin: Sample of the stream at 16 kHz at which it begins.
        end: Samples of the stream at 16 kHz that its frames have heard.
        final: True where the stream ends with it.
        short: True where its frames did not hear all that they want: it did not come.
    """

    number: int
    frames: range
    speech: Sequence[Speech]
    begin: int
    end: int
    final: bool
    short: bool = False

    @property
    def is_silent(self) -> bool:
        """True where no frame shows anything of an utterance."""
        return self.speech[0].onset is None


class HopGrid:
    """Where the hops of an utterance end.

    Args:
        first: Seconds of the first hop.
        longest: Seconds of the longest; each hop before it is half as long as the one after it.
    """

    def __init__(self, first: Fraction, longest: Fraction) -> None:
        self._first = min(first, longest) * SAMPLE_RATE
        self._longest = longest * SAMPLE_RATE
        self.restart(0)

    @property
    def begin(self) -> int:
        """Where the hop begins whose end was asked for last."""
        return int(self._end - self._length)

    def restart(self, sample: int) -> None:
        """Let an utterance begin at a sample."""
        self._length = self._first
        self._end = sample + self._length

    def end_from(self, sample: int) -> int:
        """The first end of a hop at a sample or after it; to be asked for in ascending order."""
        while int(self._end) < sample:
            self._length = min(2 * self._length, self._longest)
            self._end += self._length
        return int(self._end)


class HopPlanner:
    """Decides which frames of a stream are due.

    Args:
        timeline: Index arithmetic at the stream's frame rate.
        level: Where silence begins and ends; None takes everything for speech.
        grid: Where hops end.
        restarts: The grid begins anew with each utterance; else it is that of the whole stream.
    """

    def __init__(
        self, timeline: Timeline, level: SilenceLevel | None, grid: HopGrid, *, restarts: bool
    ) -> None:
        self._timeline = timeline
        self._fade = Fade(timeline, level)
        self._grid = grid
        self._restarts = restarts
        self._decided: deque[Speech] = deque()
        self._utterance = -1
        self._number = 0
        self._next = 0
        self._total = 0
        self._cut = 0
        self._closed = -1
        self._stop: int | None = None
        self._due: Hop | None = None
        self._in_utterance = False

    @property
    def in_utterance(self) -> bool:
        """True where the last frame that was planned is of an utterance."""
        return self._in_utterance

    @property
    def next_frame(self) -> int:
        """The first frame that was not planned yet."""
        return self._next

    @property
    def done(self) -> bool:
        """True once the sound has ended and its last frame was planned."""
        return self._stop is not None and self._next >= self._stop

    @property
    def is_speaking(self) -> bool:
        """True where the sound heard last is in the middle of speech."""
        return self._fade.is_speaking

    def listen(self, samples: Samples) -> None:
        """Append float32 `[n]` at 16 kHz."""
        self._fade.listen(samples)
        self._total += len(samples)
        self._decide()
        if self._restarts and self._due is not None and self._due.is_silent:
            self._due = None  # more of the silence may be due with it

    def close(self) -> None:
        """End the utterance: what is listened to next is silence in the place of sound that did not come."""
        self._fade.close()
        self._closed = self._total

    def end(self, frames: int) -> None:
        """End the sound after so many frames."""
        self._stop = frames
        self._decide()

    def cut(self, stop: int) -> None:
        """Let the frames before `stop` wait no longer: they are planned with what was heard."""
        self._cut = max(self._cut, stop)
        self._decide()

    def mute(self) -> None:
        """Take all that was heard for silence, in the frames that were not planned yet."""
        self._fade.mute()
        self._decided.clear()
        self._due = None
        self._decide()

    def due(self) -> Hop | None:
        """The next hop whose sound was heard; the same one until `plan` is called."""
        if self._due is None and self._decided:
            self._due = self._find()
        return self._due

    def _find(self) -> Hop | None:
        first = self._decided[0].onset
        if first is None:
            run = sum(1 for _ in takewhile(lambda speech: speech.onset is None, self._decided))
            frames = range(self._next, self._next + run)
            end = min(self._total, self._timeline.needed(frames[-1]))
            if self._restarts:
                return self._hop(frames, end, end)
            # the rest of a hop of the whole stream may be spoken, and is encoded with its begin
            self._grid.end_from(end)
            return self._hop(frames, self._grid.begin, end)
        if self._restarts and first.number != self._utterance:
            self._utterance = first.number
            self._grid.restart(first.row * SAMPLES_PER_ROW)
        own = sum(1 for _ in takewhile(lambda speech: speech.onset == first, self._decided))
        frames = range(self._next, self._next + own)
        end, begin = self._grid.end_from(self._timeline.needed(self._next)), self._grid.begin
        if self._total >= end:
            return self._hop(range(frames.start, self._complete(frames, end)), begin, end)
        if self._stop is not None:
            return self._hop(frames, begin, self._total)
        if self._next < self._cut:
            return self._hop(frames, begin, self._total, short=True)
        return None

    def plan(self, hop: Hop) -> None:
        """Move past a due hop."""
        self._due = None
        for _ in hop.frames:
            self._decided.popleft()
        self._next = hop.frames.stop
        self._in_utterance = not hop.is_silent
        self._number += 1

    def _hop(self, frames: range, begin: int, end: int, *, short: bool = False) -> Hop:
        speech = [self._decided[place] for place in range(len(frames))]
        start, needed = self._timeline.frame_start(frames.start), self._timeline.needed(frames.start)
        short = short or start < self._closed < needed
        return Hop(self._number, frames, speech, begin, end, frames.stop == self._stop, short)

    def _complete(self, frames: range, end: int) -> int:
        """One past the last of some frames, the first of which is complete, that `end` samples complete."""
        stop = frames.start + 1
        while stop < frames.stop and self._timeline.complete(stop, end):
            stop += 1
        return stop

    def _decide(self) -> None:
        """Decide what is said in each frame that has heard all it wants, or waits no longer."""
        frame = self._next + len(self._decided)
        while self._waits_no_longer(frame):
            self._decided.append(self._fade.speech(frame))
            frame += 1

    def _waits_no_longer(self, frame: int) -> bool:
        if self._stop is not None:
            return frame < self._stop
        return frame < self._cut or self._timeline.complete(frame, self._total)


def stream_tokens(
    sound: Samples,
    encode: Encode,
    timeline: Timeline,
    hop: Fraction,
    context: Fraction | None = None,
    window_rows: int = ROWS_PER_WINDOW,
) -> Iterator[Tensor]:
    """Tokens `[10 * layers, width]` of each frame of a whole sound, as a stream in hops gives them.

    Args:
        sound: float32 `[n]` at 16 kHz.
        encode: Samples of a window to rows, as `AudioEncoder` does.
        timeline: Index arithmetic at the frame rate.
        hop: Seconds of every hop.
        context: Seconds of past sound in a window; None is as much as fits.
        window_rows: Rows of a window.
    """
    planner = HopPlanner(timeline, None, HopGrid(hop, hop), restarts=False)
    features = FeatureStream(timeline, context, window_rows)
    features.append(sound)
    planner.listen(sound)
    planner.end(timeline.frames_in(len(sound)))
    while (due := planner.due()) is not None:
        yield from features.give(encode(features.ask(due.frames, due.begin, due.end)))
        planner.plan(due)
