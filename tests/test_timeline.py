from fractions import Fraction
from itertools import count, pairwise
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.errors import InputError
from musetalk_cli.timeline import (
    ROWS_PER_FRAME,
    Timeline,
    mirrored,
    parse_chunk,
    parse_context,
    parse_fps,
    parse_window,
    rows_in,
)

RATES = st.one_of(
    st.integers(1, 120).map(Fraction),
    st.sampled_from([Fraction(30000, 1001), Fraction("29.97"), Fraction("23.976"), Fraction("7.5")]),
)


@given(RATES, st.integers(320, 16_000 * 90))
def test_published_rows_of_a_frame_are_those_of_the_zero_padded_array(fps, samples):
    """The published rule, done literally on row numbers."""
    timeline = Timeline(fps, "published")
    rows, frames, step = rows_in(samples), timeline.frames_in(samples), Fraction(50) / fps
    before, after = ceil(step) * 2, ceil(step) * 3 * 2
    padded = np.concatenate([np.full(before, -1), np.arange(rows), np.full(after + 64, -1)])
    for frame in {0, 1, frames // 2, frames - 1} & set(range(frames)):
        expected = padded[floor(frame * step) :][:ROWS_PER_FRAME]
        ours = np.arange(timeline.first_row(frame), timeline.last_row(frame))
        assert np.array_equal(np.where((ours < 0) | (ours >= rows), -1, ours), expected)


@given(RATES, st.integers(0, 100_000))
def test_a_frame_hears_four_rows_before_the_one_it_starts_in_and_six_from_there(fps, frame):
    timeline = Timeline(fps)
    row = next(row for row in count(floor(frame / fps * 50) - 1) if (row + 1) * Fraction(1, 50) > frame / fps)
    assert row * Fraction(1, 50) <= frame / fps
    assert (timeline.first_row(frame), timeline.last_row(frame)) == (row - 4, row + 6)


@given(st.integers(0, 100_000))
def test_both_alignments_are_one_at_25_fps(frame):
    frames, published = Timeline(Fraction(25)), Timeline(Fraction(25), "published")
    assert frames.first_row(frame) == published.first_row(frame) == 2 * frame - 4
    assert frames.look_ahead == published.look_ahead


@given(RATES, st.sampled_from(["frame", "published"]))
def test_the_look_ahead_is_what_the_rows_reach_past_the_start(fps, alignment):
    """0.12 s at every rate; the published rows of 10 fps end with the frame's start, those of 5 before it."""
    timeline = Timeline(fps, alignment)
    ends = [Fraction(timeline.last_row(frame), 50) - frame / fps for frame in range(200)]
    assert max(ends) == timeline.look_ahead
    if alignment == "frame":
        assert timeline.look_ahead == Fraction(12, 100)
    waits = [Fraction(timeline.needed(frame), 16_000) - frame / fps for frame in range(200)]
    assert timeline.wait - Fraction(1, 16_000) <= max(waits) <= timeline.wait


@given(RATES, RATES, st.integers(0, 100_000))
def test_the_source_frame_is_the_one_that_a_player_shows(fps, source_fps, frame):
    """The last one that has begun when the frame starts."""
    shown = Timeline(fps).source_frame(frame, source_fps)
    assert shown / source_fps <= frame / fps < (shown + 1) / source_fps


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


def test_windows_are_read_exactly():
    assert parse_window("3") == 3
    assert parse_window("7.52") == Fraction(188, 25)
    assert parse_window("30") == 30
    for text in ("2.99", "30.01", "0", "-5", "nan", "max", "long"):
        with pytest.raises(InputError, match="--window"):
            parse_window(text)
