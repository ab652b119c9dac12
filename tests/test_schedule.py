import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.sources.schedule import Schedule

LEAD = 0.25
TICK = 0.02
START = 5000.0


def all_silence(schedule, now):
    """Every block of silence that is due now."""
    blocks = []
    while samples := schedule.silence(now):
        blocks.append(samples)
    return blocks


def test_silence_begins_after_a_tenth_of_a_second_with_the_whole_of_it_and_then_comes_by_the_tick():
    schedule = Schedule(16000, START)
    assert all_silence(schedule, START + 0.0999) == []
    assert all_silence(schedule, START + 0.125) == [800, 800, 400]
    assert all_silence(schedule, START + 0.144) == []
    assert all_silence(schedule, START + 0.146) == pytest.approx([336], abs=1)


def test_sound_ends_the_silence_and_patience_begins_anew():
    schedule = Schedule(16000, START)
    assert sum(all_silence(schedule, START + 1.0)) == 16000
    schedule.take(320, START + 1.01)
    assert schedule.covered == pytest.approx(START + 1.02)
    assert all_silence(schedule, START + 1.119) == []
    assert sum(all_silence(schedule, START + 1.121)) == 1600


@pytest.mark.parametrize("hours", [2, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rate", [11025, 16000, 44100, 48000])
def test_hours_of_silence_are_as_long(rate, hours):
    random_steps = random.Random(rate)
    schedule, now = Schedule(rate, START), START + 1.0
    total = sum(all_silence(schedule, now))
    while now < START + hours * 3600:
        now += random_steps.choice([0.0201, 0.0333, 0.1, 3.7, 400.0])
        total += sum(all_silence(schedule, now))
        assert (now - START) * rate - total < TICK * rate + 1
    assert total <= (now - START) * rate


def test_sound_that_comes_late_is_forgiven_down_to_the_slack():
    schedule = Schedule(16000, START)
    schedule.take(160, START + 0.09)
    assert schedule.covered == pytest.approx(START + 0.05)
    schedule.take(160, START + 0.09)
    assert schedule.covered == pytest.approx(START + 0.06)


def test_what_was_discarded_is_not_missing_and_silence_goes_on():
    schedule = Schedule(16000, START)
    schedule.take(320, START)
    schedule.take(0, START + 10)
    assert schedule.covered == pytest.approx(START + 9.96)
    assert all_silence(schedule, START + 10.05) == []
    assert sum(all_silence(schedule, START + 11)) == pytest.approx(1.04 * 16000, abs=1)
    schedule.take(0, START + 11)
    assert all_silence(schedule, START + 11.021) == pytest.approx([336], abs=1)


def test_five_seconds_at_once_are_taken_at_the_speed_of_the_clock():
    schedule, left, now = Schedule(48000, START), 5 * 48000, START
    while left:
        while (samples := min(left, schedule.room(now))) > 0:
            assert samples <= 0.05 * 48000
            schedule.take(samples, now)
            left -= samples
            assert schedule.covered <= now + LEAD
        taken = 5 - left / 48000
        assert taken <= (now - START) * 1.01 + LEAD + 0.01
        assert schedule.silence(now) == 0
        now += schedule.wait(now)
    assert 4.6 < now - START < 4.78


def test_nothing_is_read_while_less_than_a_tick_fits():
    schedule = Schedule(16000, START)
    while room := schedule.room(START):
        schedule.take(room, START)
    assert LEAD - TICK < schedule.covered - START <= LEAD
    assert schedule.room(schedule.covered - LEAD + 0.0195) == 0
    assert schedule.room(schedule.covered - LEAD + 0.0205) == pytest.approx(328, abs=1)


@settings(max_examples=200, deadline=None)
@given(
    rate=st.sampled_from([4000, 11025, 44100, 384000]),
    events=st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 1)), max_size=60),
)
def test_the_lead_is_never_passed_and_no_wait_is_endless(rate, events):
    schedule, now = Schedule(rate, START), START
    for step, share in events:
        now += step
        samples = int(schedule.room(now) * share)
        if samples:
            schedule.take(samples, now)
        else:
            all_silence(schedule, now)
            assert 0 < schedule.wait(now) <= TICK
            assert schedule.covered > now - 0.1 - 2 / rate
        assert schedule.covered <= now + LEAD + 1e-6


@pytest.mark.parametrize("hours", [2, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_hours_with_a_clock_that_is_off_needs_neither_silence_nor_a_brake(drift, hours):
    """Packets of 80 ms by the sender's clock, up to 20 ms late, for hours."""
    rate, packet = 16000, 1280
    jitter = random.Random(1)
    schedule = Schedule(rate, START)
    for number in range(1, hours * 3600 * rate // packet):
        now = START + number * packet / rate / (1 + drift) + jitter.random() * 0.02
        assert schedule.silence(now - 1e-4) == 0
        first = min(packet, schedule.room(now))
        schedule.take(first, now)
        if first < packet:
            assert schedule.room(now) >= packet - first
            schedule.take(packet - first, now)
    assert abs(schedule.covered - now) <= LEAD


def test_a_sender_that_is_one_percent_fast_is_read_as_fast_as_it_sends():
    rate, packet = 48000, 960
    schedule = Schedule(rate, START)
    for number in range(1, 360_000):
        now = START + number * packet / rate / 1.01
        assert schedule.room(now) >= packet
        schedule.take(packet, now)
