"""What a machine needs, and which hops it sustains."""

from fractions import Fraction

import pytest

from musetalk_cli.engine.costs import BUSY_SHARE, Costs

FPS = Fraction(25)


def test_a_hop_costs_its_features_and_its_frames_in_batches_no_larger_than_it():
    costs = Costs(0.05, {2: 0.04, 13: 0.13})
    assert costs.of(Fraction(1, 5), FPS) == pytest.approx(0.05 + 5 * 0.02)
    assert costs.of(Fraction(26, 50), FPS) == pytest.approx(0.05 + 13 * 0.01)
    assert costs.of(Fraction(1, 25), FPS) == pytest.approx(0.05 + 0.02), "the smallest is padded up"
    assert costs.first_frames == pytest.approx(0.09)


@pytest.mark.parametrize(("hop", "sustained"), [("0.1", False), ("0.2", True), ("0.5", True)])
def test_a_hop_is_sustained_where_some_time_is_left(hop, sustained):
    costs = Costs(0.05, {2: 0.02})
    assert costs.sustains(Fraction(hop), FPS) is sustained
    assert (costs.of(Fraction(hop), FPS) <= BUSY_SHARE * float(Fraction(hop))) is sustained


def test_what_was_not_measured_costs_nothing():
    assert Costs().sustains(Fraction(1, 25), FPS)
    assert Costs().first_frames == 0
