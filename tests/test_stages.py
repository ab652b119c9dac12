import bisect
import math
import statistics
import threading
import tracemalloc

import numpy as np
import pytest
from clocks import FakeClock

from musetalk_cli.clock import Pacer
from musetalk_cli.measure.stages import KEPT, Figures, Percentiles, StageStats
from musetalk_cli.measure.throughput import StageRates

FRAMES_OF_AN_HOUR = 30 * 3600


def test_a_pacer_keeps_to_the_schedule_whatever_the_work_takes():
    clock, never = FakeClock(), threading.Event()
    pacer = Pacer(clock, rate=50)
    for item, work in enumerate([0.0, 0.005, 0.019, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]):
        due = pacer.wait_for(item, never)
        assert due == pytest.approx(1000 + item / 50)
        assert clock.now() >= due
        clock.time += work
    assert clock.now() == pytest.approx(1000 + 8 / 50), "lateness was made up for, not added up"


def test_percentiles_are_in_milliseconds():
    seconds = np.random.default_rng(0).random(1000)
    figures = Percentiles.of(list(seconds))
    assert figures.p50 == pytest.approx(1e3 * np.quantile(seconds, 0.5))
    assert figures.p99 == pytest.approx(1e3 * np.quantile(seconds, 0.99))
    assert Percentiles.of([]) == Percentiles(0.0, 0.0, 0.0)


def test_figures_are_exact_while_all_are_kept():
    figures = Figures()
    assert (figures.count, figures.total, figures.largest) == (0, 0.0, 0.0)
    assert figures.percentiles() == Percentiles(0.0, 0.0, 0.0)
    seconds = np.random.default_rng(1).exponential(0.02, KEPT).tolist()
    for value in seconds:
        figures.append(value)
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    found = figures.percentiles()
    assert (found.p50, found.p95, found.p99) == pytest.approx([1e3 * cuts[i - 1] for i in (50, 95, 99)])
    assert figures.count == KEPT
    assert figures.largest == max(seconds)
    assert figures.total == pytest.approx(math.fsum(seconds), rel=1e-12)


@pytest.mark.parametrize("hours_long", [2, pytest.param(24, marks=pytest.mark.slow)])
def test_figures_of_hours_stay_small_and_true(hours_long):
    """The load changes all the time: a sample that favoured any part of it would show."""
    frames = hours_long * FRAMES_OF_AN_HOUR
    random = np.random.default_rng(2)
    hours = np.linspace(0, 24, frames)
    seconds = random.exponential(0.02, frames) * (1 + 0.5 * np.sin(hours)) + hours * 0.002
    seconds[frames // 2] = 99.0
    feed = seconds.tolist()
    figures = Figures()
    for value in feed[:-100_000]:
        figures.append(value)
    tracemalloc.start()
    for index in range(frames - 100_000, frames):
        figures.append(feed[index])
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 10_000, "bytes"
    assert len(figures.sample()) == KEPT
    assert figures.count == frames
    assert figures.largest == 99.0
    assert figures.total == pytest.approx(math.fsum(feed), rel=1e-12)
    ordered = sorted(feed)
    found = figures.percentiles()
    for rank, told in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99)):
        true_rank = bisect.bisect(ordered, told / 1e3) / frames
        assert abs(true_rank - rank) < 4 * math.sqrt(rank * (1 - rank) / KEPT), "four standard deviations"


def test_every_duration_is_as_likely_to_be_kept():
    """Durations that are their own numbers, four times as many as fit: a quarter of every tenth is kept."""
    figures = Figures()
    for number in range(4 * KEPT):
        figures.append(float(number))
    tenths = np.histogram(figures.sample(), bins=10, range=(0, 4 * KEPT))[0]
    deviation = math.sqrt(KEPT * 0.1 * 0.9)
    assert np.abs(tenths - KEPT / 10).max() < 4 * deviation
    assert len(np.unique(figures.sample())) == KEPT, "none is kept twice"


def test_figures_can_be_read_while_they_are_taken():
    figures = Figures()
    failed = []

    def write():
        for _ in range(20_000):
            figures.append(0.5)

    def read():
        try:
            while writer.is_alive():
                assert figures.percentiles().p99 in {0.0, 500.0}
        except Exception as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    reader = threading.Thread(target=read)
    for thread in (writer, reader):
        thread.start()
    for thread in (writer, reader):
        thread.join(60)
    assert not failed
    assert figures.count == 20_000
    assert figures.total == pytest.approx(10_000)


def test_stages_are_summed_and_ordered():
    clock = FakeClock()
    stats = StageStats(clock)
    for stage, took in (("vae", 0.2), ("unet", 0.1), ("vae", 0.4), ("extra", 0.0)):
        with stats.device_span(stage):
            clock.time += took
    summary = stats.summary(("unet", "vae", "sink"))
    assert list(summary) == ["unet", "vae", "extra"]
    assert summary["vae"].count == 2
    assert summary["vae"].total_ms == pytest.approx(600)
    assert summary["vae"].times.p50 == pytest.approx(300)
    stats.clear()
    assert stats.summary(()) == {}


def test_what_fails_is_not_timed():
    stats = StageStats(FakeClock())
    with pytest.raises(KeyError), stats.span("unet"):
        raise KeyError
    assert stats.summary(()) == {}


def test_rates_leave_waiting_out():
    clock = FakeClock()
    rates = StageRates(clock)
    assert rates.rates() == {}
    for _ in range(3):
        with rates.span("detect", 8):
            clock.time += 0.5
        clock.time += 100
    assert rates.rates() == {"detect": pytest.approx(16)}


def test_rates_of_what_yields_time_how_long_each_item_takes_to_come():
    clock = FakeClock()

    def slow():
        for item in range(5):
            clock.time += 0.25
            yield item

    rates = StageRates(clock)
    taken = []
    for item in rates.each("decode", slow()):
        taken.append(item)
        clock.time += 10
    assert taken == list(range(5))
    assert rates.rates() == {"decode": pytest.approx(4)}


def test_the_failure_of_what_yields_comes_through():
    clock = FakeClock()

    def broken():
        clock.time += 1
        yield 1
        raise ValueError("broken")

    rates = StageRates(clock)
    coming = rates.each("decode", broken())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="broken"):
        next(coming)
    assert rates.rates() == {"decode": pytest.approx(1)}


def test_stages_are_in_the_order_in_which_they_began():
    clock = FakeClock()
    rates = StageRates(clock)
    with rates.span("outer"):
        clock.time += 1
        with rates.span("inner"):
            clock.time += 1
        assert list(rates.rates()) == ["inner"], "what has done nothing yet has no rate"
    assert rates.rates() == {"outer": pytest.approx(0.5), "inner": pytest.approx(1)}
    assert list(rates.rates()) == ["outer", "inner"]


def test_a_stage_of_several_workers_has_the_rate_of_all_of_them():
    """Two take a second a frame each, half a second apart: for 2.5 seconds one at least is at work."""
    clock = FakeClock()
    rates = StageRates(clock)
    spans = [rates.span("write") for _ in range(4)]
    for at, worker, begins in (
        (0.0, 0, True), (0.5, 1, True), (1.0, 0, False), (1.0, 2, True), (1.5, 1, False), (1.5, 3, True),
        (2.0, 2, False), (2.5, 3, False),
    ):  # fmt: skip
        clock.time = 1000 + at
        if begins:
            spans[worker].__enter__()
        else:
            spans[worker].__exit__(None, None, None)
    clock.time += 50
    assert rates.rates() == {"write": pytest.approx(4 / 2.5)}


def test_what_failed_does_not_count_and_ends():
    clock = FakeClock()
    rates = StageRates(clock)
    with rates.span("parse"):
        clock.time += 1
    with pytest.raises(KeyError), rates.span("parse"):
        raise KeyError
    clock.time += 50
    with rates.span("parse"):
        clock.time += 1
    assert rates.rates() == {"parse": pytest.approx(1)}


def test_no_frame_of_several_threads_is_lost():
    clock = FakeClock()
    rates = StageRates(clock)

    def work():
        for _ in range(300):
            with rates.span("write"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    with rates.span("write", 0):
        clock.time += 10
    assert rates.rates() == {"write": pytest.approx(120)}
