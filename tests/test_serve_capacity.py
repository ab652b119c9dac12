"""How many may speak, and how many sessions there may be, by costs that are given."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.bench.stand_in import deaf, stand_in
from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.clock import MonotonicClock
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.costs import BUSY_SHARE, Costs
from musetalk_cli.engine.engine import Engine
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.serve import capacity
from musetalk_cli.serve.capacity import MOST_SPEAKERS, Capacity, Shares, encoding_s, settle

SHARES = st.floats(0.001, 1.5)


@pytest.mark.parametrize(
    ("shares", "asked", "expected"),
    [
        # the model alone would sustain two
        (Shares(0.3, 0.05, on_cores=True), None, Capacity(1, 4)),
        (Shares(0.3, 0.05, on_cores=False), None, Capacity(2, 8)),
        # two speakers take 0.6, and 0.2 is enough for no others
        (Shares(0.3, 0.05, on_cores=True), 4, Capacity(2, 4)),
        (Shares(0.3, 0.05, on_cores=True), 1000, Capacity(1, 1000)),
        # one speaker and three others are too much: one and one are not
        (Shares(0.5, 0.15, on_cores=True), None, Capacity(1, 2)),
        (Shares(2.0, 0.15, on_cores=True), None, Capacity(1, 1)),
        # encoders that are slower than the device
        (Shares(0.01, 0.1, on_cores=False), None, Capacity(8, 8)),
        (Shares(0.1, 0.05, on_cores=False), None, Capacity(8, 16)),
        (Shares(0.0, 0.0, on_cores=True), None, Capacity(MOST_SPEAKERS, 4 * MOST_SPEAKERS)),
    ],
)
def test_so_many_may_speak_and_be_there(shares, asked, expected):
    assert shares.capacity(asked) == expected


@given(SHARES, SHARES, st.booleans(), st.none() | st.integers(1, 50))
def test_all_that_are_taken_leave_time_to_spare_or_it_is_one_speaker(speaking, encoding, on_cores, asked):
    found = Shares(speaking, encoding, on_cores=on_cores).capacity(asked)
    cores = found.sessions * encoding + (found.speakers * speaking if on_cores else 0.0)
    if found.speakers > 1:
        assert found.speakers * speaking <= BUSY_SHARE
        assert asked is not None or cores <= BUSY_SHARE + 1e-9
    assert found.sessions == asked or found.speakers <= found.sessions <= 4 * found.speakers
    more = found.speakers + 1
    sessions = min(4 * more, asked or 4 * more) if on_cores else more
    cores = sessions * encoding + (more * speaking if on_cores else 0.0)
    assert max(cores, more * speaking) > BUSY_SHARE, "one speaker more would not"


@given(SHARES, SHARES, SHARES)
def test_dearer_encoding_never_allows_more(speaking, encoding, other):
    less, more = sorted((encoding, other))
    for on_cores in (True, False):
        cheap, dear = (Shares(speaking, each, on_cores=on_cores).capacity(None) for each in (less, more))
        assert dear.speakers <= cheap.speakers
        assert dear.speakers < cheap.speakers or dear.sessions <= cheap.sessions


def test_the_chunk_and_the_speakers_are_counted_with_the_encoders_of_a_cpu(monkeypatch):
    """Of two cores 0.3 is what four sessions encode at 6 ms a frame; the model alone would sustain two."""
    engine = Engine(
        stand_in(), JobConfig(auto_chunk=True), StageStats(MonotonicClock()), encode=deaf, live=True
    )
    engine.costs = Costs(0.01, {2: 0.05, 13: 0.13})
    monkeypatch.setattr(capacity, "usable_cores", lambda: 2)
    monkeypatch.setattr(capacity, "encoding_s", lambda avatar, fps: 0.006)
    found = settle(engine, synthetic_avatar(96, 72, 40, 2), None)
    assert engine.job.chunk == Fraction("0.16"), "0.1 without"
    assert found == Capacity(1, 4)


def test_what_is_encoded_is_timed_a_frame_in_the_form_that_costs_most():
    avatar = synthetic_avatar(96, 72, 40, 2)

    def ticking(*seconds):
        times = iter((0.0, *seconds))
        return lambda: next(times)

    assert encoding_s(avatar, Fraction(10), ticking(0.5, 0.6)) == pytest.approx(0.05)
    assert encoding_s(avatar, Fraction(10), ticking(0.1, 0.6)) == pytest.approx(0.1)
    assert 0 < encoding_s(avatar, Fraction(10)) < 1


def test_more_pixels_cost_more():
    small, large = (
        encoding_s(synthetic_avatar(*size, 40, 2), Fraction(10)) for size in ((96, 72), (960, 720))
    )
    assert large > 2 * small
