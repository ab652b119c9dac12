"""Latency statistics of a stream: when its frames came, measured from when their sound did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from musetalk_cli.measure.stages import Figures, Percentiles
from musetalk_cli.types import Frame


@dataclass(slots=True)
class Latencies:
    """The latencies of a stream, in seconds, and what was late.

    The first two are those of made frames: a hop of silence needs no time, and says nothing.

    Attributes:
        chunk_s: Length of a hop.
        first_frame: Hop complete to its first frame composited, one per hop.
        last_frame: Hop complete to its last frame composited, one per hop.
        mouth_to_eye: Arrival of a frame's first sample to the frame in a sink, one per frame, by sink.
        response: Arrival of an utterance's first sound to its first speaking frame in a sink, one per
            utterance that got one, by sink.
        late: Made frames that were composited after they were due; none is where no frame has its time.
    """

    chunk_s: float
    first_frame: Figures = field(default_factory=Figures)
    last_frame: Figures = field(default_factory=Figures)
    mouth_to_eye: dict[str, Figures] = field(default_factory=dict)
    response: dict[str, Figures] = field(default_factory=dict)
    late: int = 0
    _watched: set[str] = field(default_factory=set)
    _answered: dict[str, int] = field(default_factory=dict)
    _hop: int = -1
    _delay: float | None = None

    def composited(self, frame: Frame, due: float | None) -> None:
        """Take note of a frame; frames come in order.

        Args:
            frame: The frame.
            due: Monotonic seconds at which it is shown; None where it is as soon as it is made.
        """
        if not frame.fate.is_made:
            return
        delay = frame.composited - frame.request.ready
        if frame.request.hop != self._hop:
            self.end_hop()
            self._hop = frame.request.hop
            self.first_frame.append(delay)
        self._delay = delay
        self.late += due is not None and frame.composited > due

    def end_hop(self) -> None:
        """Take note of the last hop's last frame."""
        if self._delay is not None:
            self.last_frame.append(self._delay)
        self._delay = None

    def handed(self, sink: str, frame: Frame, at: float, *, watched: bool) -> float | None:
        """Take note of a frame as it was handed to a sink.

        Args:
            sink: Which one.
            frame: The frame; a sink's frames come in order.
            at: Monotonic seconds.
            watched: Somebody looks at the sink.

        Returns:
            The response time, where this is the first speaking frame of its utterance there.
        """
        if watched:
            self._watched.add(sink)
        self.mouth_to_eye.setdefault(sink, Figures()).append(at - frame.request.arrived)
        spoken = frame.request.utterance
        if spoken is None or not frame.fate.is_made or spoken.number <= self._answered.get(sink, -1):
            return None
        self._answered[sink] = spoken.number
        response = at - spoken.arrived
        self.response.setdefault(sink, Figures()).append(response)
        return response

    def worst_mouth_to_eye(self) -> Percentiles:
        """Mouth to eye where it is worst among the sinks that somebody watches, or among all if none is."""
        return self._worst(self.mouth_to_eye)

    def worst_response(self) -> Percentiles:
        """Response time, of the same choice of sinks."""
        return self._worst(self.response)

    def _worst(self, by_sink: Mapping[str, Figures]) -> Percentiles:
        told = [
            figures.percentiles()
            for sink, figures in by_sink.items()
            if sink in self._watched or not self._watched
        ]
        return max(told, key=lambda each: each.p95, default=Percentiles.of([]))
