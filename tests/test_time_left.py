"""Time left of a piece of work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.cli.time_left import TimeLeft, in_hours


def test_nothing_is_said_until_the_rate_is_known():
    estimate = TimeLeft()
    for done, now in ((1, 60.0), (2, 60.5), (3, 60.9), (5, 60.99)):
        estimate.update(done, now)
        assert estimate.text(1000) == ""
    estimate.update(6, 61.0)
    assert estimate.text(1006) == "0:03:20 left"
    assert estimate.text(None) == ""


def test_what_was_done_before_and_a_slow_start_do_not_count():
    estimate = TimeLeft()
    for number in range(100):
        estimate.update(5001 + number, 300 + number / 10)
    assert estimate.rate == pytest.approx(10)
    assert estimate.text(6100) == "0:01:40 left"


def test_where_items_are_lost_it_goes_on_at_the_known_rate():
    """As a batch does that loses a worker in the middle of a long sound."""
    estimate = TimeLeft()
    for number in range(100):
        estimate.update(number, number / 10)
    estimate.update(20, 10.0)
    assert estimate.text(120) == "0:00:10 left"
    estimate.update(21, 10.1)
    assert estimate.rate == pytest.approx(10)
    early = TimeLeft()
    for done, now in ((0, 0.0), (2, 5.0), (0, 6.0), (3, 7.0)):
        early.update(done, now)
    assert early.rate == pytest.approx(3), "what was lost before the rate was known does not count"


def test_a_change_of_rate_comes_in_smoothly():
    estimate = TimeLeft()
    for number in range(100):
        estimate.update(number, number / 10)
    seen = []
    for number in range(100, 400):
        estimate.update(number, 9.9 + (number - 99) / 5)
        seen.append(estimate.rate)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > 9.5
    assert seen[-1] == pytest.approx(5, abs=0.1)


@given(st.integers(0, 10**7))
def test_a_duration_in_hours_is_read_back(seconds):
    hours, minutes, rest = in_hours(seconds).split(":")
    assert int(hours) * 3600 + int(minutes) * 60 + int(rest) == seconds
    assert (len(minutes), len(rest)) == (2, 2)
