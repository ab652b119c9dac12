"""What a machine needs, and which hops it sustains."""

from dataclasses import replace
from fractions import Fraction

import pytest
from clocks import FakeClock

from musetalk_cli.bench.stand_in import deaf, stand_in
from musetalk_cli.config import JobConfig
from musetalk_cli.engine.costs import BUSY_SHARE, Costs
from musetalk_cli.engine.engine import Engine
from musetalk_cli.measure.stages import StageStats
from musetalk_cli.run.job import choose_chunk

FPS = Fraction(25)


def test_a_hop_costs_its_features_and_its_frames():
    costs = Costs(0.05, {2: 0.04, 12: 0.14})
    assert [costs.batch(size) for size in (1, 2, 7, 12, 20)] == pytest.approx([0.04, 0.04, 0.09, 0.14, 0.14])
    assert costs.of(Fraction(1, 5), FPS) == pytest.approx(0.05 + 0.07)
    assert costs.of(Fraction(12, 25), FPS) == pytest.approx(0.05 + 0.14)
    assert costs.first_frames == pytest.approx(0.09)


@pytest.mark.parametrize(("hop", "sustained"), [("0.1", False), ("0.2", True), ("0.48", True)])
def test_a_hop_is_sustained_where_some_time_is_left(hop, sustained):
    costs = Costs(0.05, {2: 0.04, 12: 0.14})
    assert costs.sustains(Fraction(hop), FPS) is sustained
    assert (costs.of(Fraction(hop), FPS) <= BUSY_SHARE * float(Fraction(hop))) is sustained


def test_what_is_needed_besides_leaves_less_for_a_hop():
    costs = Costs(0.05, {2: 0.04, 12: 0.14})
    hop, share = Fraction("0.2"), 0.12 / 0.2
    assert costs.sustains(hop, FPS, BUSY_SHARE - share - 0.01)
    assert not costs.sustains(hop, FPS, BUSY_SHARE - share + 0.01)


def test_what_a_stream_takes_beside_others_is_counted_by_the_batch_that_costs_least_a_frame():
    costs = Costs(0.05, {2: 0.04, 12: 0.12})
    assert costs.share(Fraction(1, 2), FPS) == pytest.approx(0.05 / 0.5 + 25 * 0.01)
    assert Costs().share(Fraction(1, 2), FPS) == 0.0


def engine_of(costs, **job):
    found = Engine(stand_in(), JobConfig(**job), StageStats(FakeClock()), encode=deaf, live=True)
    found.costs = costs
    return found


@pytest.mark.parametrize(
    ("costs", "chunk", "sizes"),
    [
        (Costs(), "0.1", (2, 3)),
        (Costs(0.02, {2: 0.04, 13: 0.15}), "0.1", (2, 3)),
        (Costs(0.05, {2: 0.04, 13: 0.15}), "0.16", (2, 4)),
        (Costs(0.08, {2: 0.08, 13: 0.28}), "0.4", (2, 4, 8, 10)),
    ],
)
def test_the_shortest_chunk_that_is_sustained_is_taken(caplog, costs, chunk, sizes):
    engine = engine_of(costs, auto_chunk=True)
    engine.bundle = replace(engine.bundle, card=replace(engine.bundle.card, cpu_batch=13))
    choose_chunk(engine)
    assert engine.job.chunk == Fraction(chunk)
    assert engine.batch_sizes == sizes, "no larger than a hop"
    assert caplog.text == ""


def test_what_is_needed_besides_makes_the_chunk_longer_and_is_no_reason_to_warn(caplog):
    costs = Costs(0.05, {2: 0.04, 13: 0.15})
    engine = engine_of(costs, auto_chunk=True)
    engine.bundle = replace(engine.bundle, card=replace(engine.bundle.card, cpu_batch=13))
    choose_chunk(engine, 0.25)
    assert engine.job.chunk == Fraction("0.3"), "0.16 without"
    engine = engine_of(costs, auto_chunk=True)
    choose_chunk(engine, 0.7)
    assert engine.job.chunk == Fraction(1, 2)
    assert caplog.text == ""


def test_where_none_is_sustained_the_longest_is_taken_and_told(caplog):
    engine = engine_of(Costs(0.5, {2: 1.0}), auto_chunk=True)
    choose_chunk(engine)
    assert engine.job.chunk == Fraction(1, 2)
    assert "needs 1.5 s to compute 0.5 s of speech" in caplog.text


def test_a_length_that_was_asked_for_stays():
    engine = engine_of(Costs(0.5, {2: 1.0}), chunk=Fraction(1, 10))
    choose_chunk(engine)
    assert engine.job.chunk == Fraction(1, 10)


def test_what_was_not_measured_costs_nothing():
    assert Costs().sustains(Fraction(1, 25), FPS)
    assert Costs().first_frames == 0
