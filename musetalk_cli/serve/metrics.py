"""What the service counts over all its sessions, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from musetalk_cli.live.observe import Snapshot
from musetalk_cli.types import Fate, Frame

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0)
"""Bounds of the histograms: 0.2 s is what an answer may take."""


@dataclass(slots=True)
class State:
    """What is read when the figures are asked for.

    Attributes:
        sessions: How many run, and how many may.
        totals: Late frames and stalls of all sessions, from the same moment.
        speakers: How many speak, and how many may.
        viewers: Of all sessions.
        batches: Batches that were made, and the frames and the rows in them: rows pad a batch to its size.
        avatar_bytes: Of avatars in memory.
        gpu_bytes: Of GPU memory in use, by everything on it; None without one.
    """

    sessions: tuple[int, int]
    totals: tuple[int, int]
    speakers: tuple[int, int]
    viewers: int
    batches: tuple[int, int, int]
    avatar_bytes: int
    gpu_bytes: int | None


class Meters:
    """Counters and histograms; safe to use from any thread.

    Attributes:
        refused: What was refused for want of room, by `session` and `speech`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._late = self._stalls = 0
        self._frames = Counter(
            "musetalk_frames",
            "Frames that were shown, by what became of them; held: dropped, the picture before it stands.",
            ["fate"],
            registry=self._registry,
        )
        for fate in Fate:
            self._frames.labels(_called(fate))
        self.refused = Counter(
            "musetalk_refused",
            "Sessions and speech that there was no room for.",
            ["what"],
            registry=self._registry,
        )
        for what in ("session", "speech"):
            self.refused.labels(what)
        self._response = self._histogram(
            "response", "From an utterance's first sound to its first speaking frame."
        )
        self._latency = self._histogram(
            "frame_latency", "From a complete hop to each of its finished frames."
        )
        self._mouth_to_eye = self._histogram(
            "mouth_to_eye", "From a frame's first sound to when it is shown, of frames whose face was made."
        )

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"musetalk_{name}_seconds", text, registry=self._registry, buckets=SECONDS)

    def shown(self, frame: Frame, now: float, *, answers: bool) -> None:
        """A frame was shown.

        Args:
            frame: The frame.
            now: Monotonic seconds.
            answers: It is the first speaking frame of its utterance.
        """
        request = frame.request
        self._frames.labels(_called(frame.fate)).inc()
        if not frame.fate.is_made:
            return
        self._latency.observe(frame.composited - request.ready)
        self._mouth_to_eye.observe(now - request.arrived)
        if answers and request.utterance is not None:
            self._response.observe(now - request.utterance.arrived)

    def ended(self, late: int, stalls: int) -> None:
        """A session has ended that had so many late frames and stalls; not for two threads at once."""
        self._late += late
        self._stalls += stalls

    def text(self, state: Callable[[], State]) -> bytes:
        """All figures in Prometheus' text format.

        Args:
            state: Gives what is read now.
        """
        registry = CollectorRegistry()
        registry.register(_Collector(state()))
        return generate_latest(self._registry) + generate_latest(registry)

    def totals(self, snapshots: Iterable[Snapshot | None]) -> tuple[int, int]:
        """Late frames and stalls of all sessions, those that run among them; while none ends."""
        running = [each for each in snapshots if each is not None]
        return (
            self._late + sum(each.late for each in running),
            self._stalls + sum(each.stalls for each in running),
        )


class _Collector:
    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        """What is read at the moment."""
        state = self._state
        late, stalls = state.totals
        yield _counter("late_frames", "Frames that were made after they were due.", late)
        yield _counter("stalls", "How often the picture stood in the middle of speech.", stalls)
        yield GaugeMetricFamily("musetalk_sessions", "Sessions that run.", state.sessions[0])
        yield GaugeMetricFamily("musetalk_sessions_most", "Sessions that may run at once.", state.sessions[1])
        yield GaugeMetricFamily("musetalk_speakers", "Sessions that speak.", state.speakers[0])
        yield GaugeMetricFamily(
            "musetalk_speakers_most", "Sessions that may speak at once.", state.speakers[1]
        )
        yield GaugeMetricFamily("musetalk_viewers", "Viewers of all sessions.", state.viewers)
        batches, frames, rows = state.batches
        yield _counter("batches", "Batches that were made.", batches)
        yield _counter("batch_frames", "Frames that were made in them.", frames)
        yield _counter("batch_rows", "Rows of them, with those that pad a batch to its size.", rows)
        yield GaugeMetricFamily("musetalk_avatar_bytes", "Avatars in memory.", state.avatar_bytes)
        if state.gpu_bytes is not None:
            yield GaugeMetricFamily("musetalk_gpu_memory_bytes", "GPU memory in use.", state.gpu_bytes)


def _called(fate: Fate) -> str:
    return fate.name.lower()


def _counter(name: str, text: str, value: int) -> Metric:
    return CounterMetricFamily(f"musetalk_{name}", text, value=value)
