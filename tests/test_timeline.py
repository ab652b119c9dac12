from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.errors import InputError
from musetalk_cli.timeline import (
    ROWS_PER_FRAME,
    Loop,
    Timeline,
    mirrored,
    parse_chunk,
    parse_context,
    parse_fps,
    rows_in,
)

RATES = st.one_of(
    st.integers(1, 120).map(Fraction),
    st.sampled_from([Fraction(30000, 1001), Fraction("29.97"), Fraction("23.976"), Fraction("7.5")]),
)


@given(RATES, st.integers(320, 16_000 * 90))
def test_rows_of_a_frame_are_those_of_the_zero_padded_array(fps, samples):
    """Section 2 of the specification, done literally on row numbers."""
    timeline = Timeline(fps)
    rows, frames, step = rows_in(samples), timeline.frames_in(samples), Fraction(50) / fps
    before, after = ceil(step) * 2, ceil(step) * 3 * 2
    padded = np.concatenate([np.full(before, -1), np.arange(rows), np.full(after + 64, -1)])
    for frame in {0, 1, frames // 2, frames - 1} & set(range(frames)):
        expected = padded[floor(frame * step) :][:ROWS_PER_FRAME]
        ours = np.arange(timeline.first_row(frame), timeline.last_row(frame))
        assert np.array_equal(np.where((ours < 0) | (ours >= rows), -1, ours), expected)


@given(RATES, st.integers(0, 48_000 * 20), st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000]))
def test_frames_partition_the_samples(fps, samples, rate):
    timeline = Timeline(fps)
    frames = timeline.frames_in(samples, rate)
    bounds = [timeline.frame_start(frame, rate) for frame in range(frames + 1)]
    assert bounds[0] == 0
    assert all(a < b for a, b in pairwise(bounds))
    assert bounds[-1] <= samples < timeline.frame_start(frames + 1, rate)


@given(RATES, st.integers(0, 16_000 * 20), st.integers(0, 800))
def test_a_complete_frame_needs_nothing_that_is_not_there(fps, samples, frame):
    timeline = Timeline(fps)
    if timeline.complete(frame, samples):
        assert timeline.last_row(frame) * 320 <= samples
        assert timeline.frames_in(samples) >= frame + 2, "the last frame must wait for the end"


def test_a_frame_at_25_fps_is_complete_120_ms_after_its_start():
    timeline = Timeline(Fraction(25))
    for frame in range(50):
        known = frame * 640 + 1920
        assert timeline.complete(frame, known)
        assert not timeline.complete(frame, known - 1)


def test_the_loop_goes_forward_then_backward():
    assert [mirrored(frame, 3) for frame in range(8)] == [0, 1, 2, 2, 1, 0, 0, 1]
    assert [mirrored(frame, 1) for frame in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25", 25),
        ("29.97", Fraction(2997, 100)),
        ("30000/1001", Fraction(30000, 1001)),
        ("1", 1),
        ("120", 120),
    ],
)
def test_frame_rates_are_read_exactly(text, value):
    assert parse_fps(text) == value


@pytest.mark.parametrize("text", ["0", "0.99", "120.01", "abc", "", "nan", "inf", "25/0", "1e999999999"])
def test_bad_frame_rates_are_refused(text):
    with pytest.raises(InputError, match="--fps"):
        parse_fps(text)


@pytest.mark.parametrize("text", ["0", "0.039", "30.1", "x", "nan", "-1"])
def test_bad_chunks_are_refused(text):
    with pytest.raises(InputError, match="--chunk"):
        parse_chunk(text)


def test_chunks_and_contexts_are_read_exactly():
    assert parse_chunk("0.04") == Fraction(1, 25)
    assert parse_chunk("2") == 2
    assert parse_context("max") is None
    assert parse_context("2.5") == Fraction(5, 2)
    for text in ("31", "-1", "nan", "much"):
        with pytest.raises(InputError, match="--context"):
            parse_context(text)


def walk(loop, resting):
    return [loop.next(resting=rests) for rests in resting]


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=200), st.sets(st.integers(0, 39)))
def test_the_loop_never_jumps_and_speech_follows_the_mirrored_clip(count, resting, rest):
    numbers = sorted(number for number in rest if number < count)
    shown = walk(Loop(count, numbers), resting)
    assert all(abs(one - other) <= 1 for one, other in pairwise(shown))
    assert walk(Loop(count, numbers), [False] * 100) == [mirrored(frame, count) for frame in range(100)]
    assert walk(Loop(count), resting) == [mirrored(frame, count) for frame in range(len(resting))]


def test_silence_stays_in_the_nearest_frames_at_rest():
    loop = Loop(20, [3, 4, 5, 6, 9, 15, 16, 17], shortest=3)
    assert walk(loop, [False] * 9) == list(range(9))
    assert walk(loop, [True] * 12) == [8, 7, 6, 5, 4, 3, 3, 4, 5, 6, 6, 5]
    assert walk(loop, [False] * 3) == [4, 3, 2]
    assert walk(loop, [True] * 6) == [2, 3, 4, 5, 6, 6]
    assert walk(Loop(5, [2], shortest=2), [True] * 7) == [0, 1, 2, 3, 4, 4, 3]
