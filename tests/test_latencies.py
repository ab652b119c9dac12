"""Latencies of a stream: those of made frames, by hop and by sink, and which of them is told."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.live.latencies import Latencies
from musetalk_cli.measure.stages import Figures, Percentiles
from musetalk_cli.types import Fate, Frame, FrameRequest, Utterance

CHUNK_S = 0.5
PICTURE = np.zeros((1, 1, 3), np.uint8)


def frame(index, hop, *, delay=0.0, ready=100.0, arrived=0.0, fate=Fate.SPEAKING, **known):
    request = FrameRequest(index, None, np.zeros((640, 1), np.float32), arrived, ready, hop, **known)
    return Frame(request, PICTURE, Fraction(index, 25), ready + delay, fate)


def spread(delays):
    """What figures of these delays say."""
    figures = Figures()
    for delay in delays:
        figures.append(delay)
    return figures.count, figures.percentiles(), figures.largest


def told(figures):
    return figures.count, figures.percentiles(), figures.largest


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(list(Fate)), st.integers(0, 1000)),
        min_size=1,
        max_size=60,
    )
)
def test_latencies_are_those_of_made_frames_one_first_and_one_last_a_chunk(steps):
    """Beside a table by chunk, whatever a chunk holds; a chunk without a made frame has no figures."""
    latencies, table, hop, late = Latencies(CHUNK_S), {}, 0, 0
    for index, (further, fate, ms) in enumerate(steps):
        hop += further
        latencies.composited(frame(index, hop, delay=ms / 1000, fate=fate, ready=0.0), due=0.5)
        if fate in {Fate.SPEAKING, Fate.FADING}:
            table.setdefault(hop, []).append(ms / 1000)
            late += ms > 500
    latencies.end_hop()
    latencies.end_hop()
    assert told(latencies.first_frame) == spread(delays[0] for delays in table.values())
    assert told(latencies.last_frame) == spread(delays[-1] for delays in table.values())
    assert latencies.late == late


def hand(latencies, sink, delays, *, watched):
    for index, delay in enumerate(delays):
        latencies.handed(sink, frame(index, 0, arrived=5.0), 5.0 + delay, watched=watched)


def test_mouth_to_eye_is_kept_for_each_sink():
    latencies = Latencies(CHUNK_S)
    hand(latencies, "out.mp4", [2.0, 3.0], watched=False)
    hand(latencies, "window", [0.1, 0.1, 0.1], watched=True)
    eye = latencies.mouth_to_eye
    assert {name: figures.count for name, figures in eye.items()} == {"out.mp4": 2, "window": 3}
    assert eye["out.mp4"].percentiles().p50 == pytest.approx(2500)
    assert eye["window"].percentiles().p50 == pytest.approx(100)


@pytest.mark.parametrize(
    ("sinks", "headline"),
    [
        ([("out.mp4", 2.0, False), ("window", 0.12, True)], 120),
        ([("window", 0.12, True), ("out.mp4", 2.0, False)], 120),
        ([("rtmp", 0.9, True), ("window", 0.12, True), ("out.mp4", 2.0, False)], 900),
        ([("window", 0.12, True), ("rtmp", 0.9, True)], 900),
        ([("a.mp4", 2.0, False), ("b.mp4", 3.0, False)], 3000),
    ],
)
def test_the_headline_is_the_worst_sink_that_somebody_watches_or_of_all(sinks, headline):
    latencies = Latencies(CHUNK_S)
    for name, delay, watched in sinks:
        hand(latencies, name, [delay] * 5, watched=watched)
    assert latencies.worst_mouth_to_eye().p95 == pytest.approx(headline)


def say(latencies, sink, number, arrived, *shown, watched=True):
    """Hand over the frames of an utterance: their fates, and when each was handed over."""
    for fate, at in shown:
        spoken = frame(0, 0, arrived=arrived, fate=fate, utterance=Utterance(number, arrived))
        latencies.handed(sink, spoken, at, watched=watched)


def test_the_response_is_the_first_speaking_frame_of_each_utterance():
    """Held, broken and passed-through frames are no answer, nor are silence and later frames."""
    latencies = Latencies(CHUNK_S)
    say(latencies, "window", 0, 5.0, (Fate.FADING, 5.7), (Fate.SPEAKING, 5.74), (Fate.FADING, 9.0))
    latencies.handed("window", frame(0, 0, arrived=5.0, fate=Fate.IDLE), 9.04, watched=True)
    say(latencies, "window", 1, 20.0, (Fate.HELD, 20.6), (Fate.PASS_THROUGH, 20.7), (Fate.BROKEN, 20.8))
    assert latencies.worst_response().p50 == pytest.approx(700)
    say(latencies, "window", 1, 20.0, (Fate.SPEAKING, 20.9))
    say(latencies, "window", 4, 30.0, (Fate.DISCARDED, 30.1))
    assert told(latencies.response["window"]) == spread([5.7 - 5.0, 20.9 - 20.0])


@pytest.mark.parametrize(
    ("sinks", "headline"),
    [
        ([("out.mp4", 2.0, False), ("window", 0.12, True)], 120),
        ([("rtmp", 0.9, True), ("window", 0.12, True), ("out.mp4", 2.0, False)], 900),
        ([("a.mp4", 2.0, False), ("b.mp4", 3.0, False)], 3000),
    ],
)
def test_the_response_told_is_that_of_the_worst_sink_that_somebody_watches_or_of_all(sinks, headline):
    latencies = Latencies(CHUNK_S)
    for name, delay, watched in sinks:
        for number in range(5):
            say(latencies, name, number, 100.0, (Fate.SPEAKING, 100 + delay), watched=watched)
    assert latencies.worst_response().p95 == pytest.approx(headline)


def test_a_watched_sink_that_showed_no_speech_yet_is_not_answered_for_by_a_file():
    latencies = Latencies(CHUNK_S)
    latencies.handed("window", frame(0, 0, fate=Fate.IDLE), 1.0, watched=True)
    say(latencies, "out.mp4", 0, 100.0, (Fate.SPEAKING, 102.0), watched=False)
    assert latencies.worst_response() == Percentiles(0, 0, 0)
