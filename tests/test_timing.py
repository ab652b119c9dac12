import threading

import numpy as np
import pytest
from clocks import FakeClock

from musetalk_cli.timing import Pacer, Percentiles, StageStats


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
    stats.clear()
    assert stats.summary(()) == {}
