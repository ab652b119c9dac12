"""When frames are due: the clock of a source, and the delay of a stream. Whole streams: test_live_timing."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.live.playout import (
    DRIFT,
    HASTE,
    JITTER_S,
    MOST_S,
    PAST_S,
    UTTERANCES,
    MinimumFilter,
    PlayoutSchedule,
    SourceClock,
)
from musetalk_cli.timeline import Timeline
from musetalk_cli.types import Fate, Frame, FrameRequest, Utterance

FPS, CHUNK = Fraction(25), Fraction(1, 5)
WAIT = 0.2 + 0.12
PICTURE = np.zeros((1, 1, 3), np.uint8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 3)), min_size=1, max_size=200), st.floats(0.1, 20))
def test_the_smallest_of_the_past_is_that(steps, past):
    smallest, at, values = MinimumFilter(past), 0.0, []
    for value, later in steps:
        at += later
        values.append((at, value))
        assert smallest.add(value, at) == min(v for when, v in values if when >= at - past)


def test_the_past_is_bounded():
    """Rising values are the worst case: each can still become the smallest."""
    smallest = MinimumFilter()
    for number in range(1000):
        smallest.add(float(number), number / 25)
    tracemalloc.start()
    for number in range(1000, 20_000):
        smallest.add(float(number), number / 25)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 400 * (PAST_S * 25), "a few hundred bytes a value, of those that can become the smallest"
    smallest.clear()
    assert smallest.add(7.0, 1e6) == 7.0


def test_a_source_that_delivers_as_it_is_spoken_tells_its_clock():
    """The earliest delivery, whatever the others were late by."""
    clock = SourceClock()
    assert clock.offset is None
    random = np.random.default_rng(0)
    for number in range(1, 200):
        clock.arrived(number * 0.02, 50 + number * 0.02 + (0 if number == 150 else random.uniform(0.01, 0.1)))
    assert clock.offset == pytest.approx(50)


def test_a_burst_tells_no_clock_and_what_follows_it_does():
    clock = SourceClock()
    for number in range(1, 100):
        clock.arrived(number * 0.05, 50.0)
    assert clock.offset is None
    for number in range(1, 1000):
        clock.arrived(5 + number * 0.02, 60 + number * 0.02)
    assert clock.offset == pytest.approx(55), "after ten seconds the burst is forgotten"
    clock.clear()
    assert clock.offset is None


def frame(index, composited, *, ready=0.0, utterance=None, fate=None):
    spoken = None if utterance is None else Utterance(utterance, ready)
    fate = fate or (Fate.IDLE if spoken is None else Fate.SPEAKING)
    request = FrameRequest(
        index, None, np.zeros((0, 1), np.float32), ready, ready, 0, fate=fate, utterance=spoken
    )
    return Frame(request, PICTURE, Fraction(index) / FPS, composited, fate)


def test_silence_that_was_put_in_moves_what_the_past_says_too():
    """Sound with a later place in the stream has the same clock: none of its past says it came late."""
    clock = SourceClock()
    for block in range(1, 51):
        clock.arrived(block / 50, 100 + block / 50)
    clock.moved(0.5)
    assert clock.offset == pytest.approx(99.5)
    for block in range(51, 101):
        clock.arrived(block / 50 + 0.5, 100 + block / 50)
    assert clock.offset == pytest.approx(99.5)


def test_an_utterance_that_came_at_once_is_due_when_its_first_frame_is_there():
    schedule = PlayoutSchedule(Timeline(FPS), CHUNK)
    assert schedule.expected(0) is None
    assert schedule.due(frame(0, 10.0)) == (10.0, 10.0)
    assert schedule.due(frame(1, 10.01)) == pytest.approx((10.04, 10.04))
    first = schedule.due(frame(2, 10.02, ready=10.01, utterance=0))
    assert first == pytest.approx((10.02, 10.02)), "before the silent one in front of it"
    for index in range(3, 30):
        at = 10.02 + (index - 2) / 25
        assert schedule.expected(index) == pytest.approx(at)
        assert schedule.due(frame(index, 10.03, ready=10.01, utterance=0)) == pytest.approx((at, at))


def test_an_utterance_as_it_is_spoken_waits_for_a_hop_and_the_look_ahead_by_the_sources_clock():
    schedule = PlayoutSchedule(Timeline(FPS), CHUNK)
    for number in range(1, 51):
        schedule.source.arrived(number * 0.02, 100 + number * 0.02)
    due = schedule.due(frame(10, 100.5, ready=100.48, utterance=0))
    assert due.at == pytest.approx(100 + 0.4 + WAIT)


def test_a_frame_that_comes_too_late_moves_the_rest_and_no_further_than_is_said():
    schedule = PlayoutSchedule(Timeline(FPS), CHUNK)
    schedule.due(frame(0, 10.0, ready=10.0, utterance=0))
    late = schedule.due(frame(1, 10.2, ready=10.0, utterance=0))
    assert late == pytest.approx((10.2, 10.04))
    assert schedule.due(frame(2, 10.2, ready=10.0, utterance=0)) == pytest.approx((10.24, 10.24))
    hopeless = schedule.due(frame(3, 20.0, ready=10.0, utterance=0))
    assert hopeless == pytest.approx((10.12 + MOST_S, 10.28))


def test_what_the_last_utterances_needed_is_waited_for():
    schedule = PlayoutSchedule(Timeline(FPS), CHUNK, computing=0.03)
    assert schedule.reserve == 0.03
    index, needs = 0, [0.08, 0.02, 0.05, 0.01]
    for number, need in enumerate(needs):
        began = 10.0 + number
        for place in range(10):
            schedule.due(frame(index, began + place / 25 + need, ready=began, utterance=number))
            index += 1
        schedule.due(frame(index, began + 0.5))
        index += 1
        last = sorted([0.03, *needs[: number + 1]][-UTTERANCES:])
        assert schedule.reserve == pytest.approx(last[len(last) // 2]), "the middle one: a hiccup is none"


def test_silence_is_shown_faster_to_change_the_delay_and_speech_is_not():
    """A source whose clock is half a second earlier, or later, than what is shown."""
    for offset, silent, spoken in ((-1.0, 1 - HASTE, 1 - DRIFT), (1.0, 1.0, 1 + DRIFT)):
        for utterance, pace in ((None, silent), (0, spoken)):
            schedule = PlayoutSchedule(Timeline(FPS), CHUNK)
            before = schedule.due(frame(100, 104.0, ready=104.0, utterance=utterance)).at
            schedule.source.arrived(4.0, 104.0 + offset)
            after = schedule.due(frame(101, 104.0, ready=104.0, utterance=utterance)).at
            assert (after - before) * 25 == pytest.approx(pace)
    assert JITTER_S < 1


def test_silence_that_came_late_is_caught_up_with_and_speech_keeps_its_pace():
    """Five frames that come a quarter of a second late, and then all in time."""
    for utterance, behind in ((None, 0.0), (0, 0.25)):
        schedule, begun = PlayoutSchedule(Timeline(FPS), CHUNK), 10.0
        shown = []
        for index in range(40):
            composited = begun + index / 25 + (0.25 if 10 <= index < 15 else -0.1)
            shown.append(
                schedule.due(frame(index, composited, ready=begun, utterance=utterance)).at - index / 25
            )
        assert shown[9] == pytest.approx(shown[0])
        assert shown[14] == pytest.approx(begun + 0.25)
        assert shown[-1] - shown[0] == pytest.approx(behind, abs=0.02)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.3)), min_size=2, max_size=60))
def test_frames_of_an_utterance_are_never_due_before_the_one_in_front(steps):
    schedule, last, number = PlayoutSchedule(Timeline(FPS), CHUNK), None, -1
    for index, (speaks, late) in enumerate(steps):
        begins = speaks and (index == 0 or not steps[index - 1][0])
        number += begins
        due = schedule.due(
            frame(index, index / 25 + late, ready=index / 25, utterance=number if speaks else None)
        )
        assert due.at >= due.planned - 1e-9
        if last is not None and not begins:
            # silence that came late is caught up with, all at once
            assert due.at > last if speaks else due.at >= last
        last = due.at
