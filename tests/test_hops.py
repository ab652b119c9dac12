"""Hops: which frames are made together, and how much sound they wait for."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.config import SilenceLevel
from musetalk_cli.engine.hops import HopGrid, HopPlanner
from musetalk_cli.timeline import SAMPLES_PER_ROW, Timeline

RATE, FPS = 16_000, Fraction(25)
TIMELINE = Timeline(FPS)
FIRST = TIMELINE.wait + 1 / FPS
"""0.16 s."""


def quiet(seconds):
    return np.zeros(round(seconds * RATE), np.float32)


def loud(seconds, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def planner(*, chunk="0.5", live=True, silence=SilenceLevel()):  # noqa: B008 - frozen
    grid = HopGrid(FIRST if live else Fraction(chunk), Fraction(chunk))
    return HopPlanner(TIMELINE, silence, grid, restarts=live)


def drain(plans):
    hops = []
    while (due := plans.due()) is not None:
        assert plans.due() is due, "the same one until it is planned"
        hops.append(due)
        plans.plan(due)
    return hops


def lengths(hops):
    """Samples of each hop of speech."""
    return [hop.end - hop.begin for hop in hops if not hop.is_silent]


def test_hops_double_up_to_a_chunk():
    grid = HopGrid(Fraction("0.1"), Fraction("0.5"))
    ends = [grid.end_from(sample) for sample in (1, 1601, 4801, 11201, 19201, 27201)]
    assert ends == [1600, 4800, 11200, 19200, 27200, 35200]
    assert grid.begin == 27200
    grid.restart(50_000)
    assert (grid.end_from(50_001), grid.begin) == (51_600, 50_000)
    assert grid.end_from(60_000) == 61_200, "what lies between is passed over"


def test_the_first_hop_is_no_longer_than_a_chunk():
    grid = HopGrid(Fraction("0.16"), Fraction("0.04"))
    assert [grid.end_from(sample) for sample in (1, 641, 1281)] == [640, 1280, 1920]


def test_hops_of_a_live_stream_begin_with_the_utterance():
    """Anywhere in the stream: a short one first, and each twice as long as the one before it."""
    for before in (1.0, 1.234, 2.02):
        plans = planner()
        plans.listen(np.concatenate([quiet(before), loud(3)]))
        hops = drain(plans)
        spoken = [hop for hop in hops if not hop.is_silent]
        onset = int(before * RATE) // SAMPLES_PER_ROW * SAMPLES_PER_ROW
        assert spoken[0].begin == onset
        assert lengths(hops)[:6] == pytest.approx([2560, 5120, 8000, 8000, 8000, 8000], abs=1)
        assert [hop.end for hop in spoken[:-1]] == [hop.begin for hop in spoken[1:]]


def test_hops_of_a_file_are_those_of_the_whole_sound():
    plans = planner(live=False)
    plans.listen(np.concatenate([quiet(1.234), loud(3), quiet(1)]))
    plans.end(TIMELINE.frames_in(round(5.234 * RATE)))
    ends = [hop.end for hop in drain(plans) if not hop.is_silent]
    assert ends[:-1] == [8000 * number for number in range(3, 3 + len(ends) - 1)]


def test_silence_is_planned_as_soon_as_it_is_known():
    plans = planner()
    plans.listen(quiet(1))
    (hop,) = drain(plans)
    assert hop.is_silent
    assert hop.frames == range(23), "as far as the look-ahead reaches"
    assert not plans.in_utterance


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.05, 1.5)), min_size=1, max_size=6),
    st.lists(st.floats(0, 1), max_size=8),
    st.booleans(),
)
def test_hops_are_functions_of_the_sound_alone(parts, cuts, live):
    """However it was cut: the same frames, begins and ends; and every frame once."""
    sound = np.concatenate([loud(long) if speaks else quiet(long) for speaks, long in parts])
    blocks = np.split(sound, sorted(int(cut * len(sound)) for cut in cuts))
    seen = []
    for coming in ([sound], blocks):
        plans, hops = planner(live=live), []
        for block in coming:
            plans.listen(block)
            hops += drain(plans)
        plans.end(TIMELINE.frames_in(len(sound)))
        hops += drain(plans)
        assert plans.done
        frames = [frame for hop in hops for frame in hop.frames]
        assert frames == list(range(TIMELINE.frames_in(len(sound))))
        seen.append([(hop.frames, hop.begin, hop.end, hop.speech) for hop in hops if not hop.is_silent])
        weights = [speech.weight for hop in hops for speech in hop.speech]
        seen[-1].append(weights)
    assert seen[0] == seen[1]


def test_frames_that_wait_no_longer_are_planned_with_what_was_heard():
    plans = planner()
    plans.listen(loud(0.1))
    assert plans.due() is None
    plans.cut(2)
    (hop,) = drain(plans)
    assert (hop.frames, hop.end, hop.short) == (range(2), 1600, True)
    plans.listen(loud(1))
    assert not drain(plans)[0].short


def test_silence_that_was_put_in_ends_the_utterance_and_its_last_frames_are_short():
    plans = planner()
    plans.listen(loud(1))
    before = drain(plans)
    assert plans.is_speaking
    plans.close()
    plans.listen(quiet(0.4))
    assert not plans.is_speaking
    plans.cut(33)
    after = drain(plans)
    assert not any(hop.short for hop in before)
    spoken = [hop for hop in after if not hop.is_silent]
    assert spoken[0].short, "its sound did not come"
    weights = [speech.weight for hop in after for speech in hop.speech]
    assert weights[-1] == 0
    assert sum(weight > 0 for weight in weights) < 8, "no hang-over"
    plans.listen(loud(1))
    again = [hop for hop in drain(plans) if not hop.is_silent]
    assert again[0].speech[0].onset.number == spoken[0].speech[0].onset.number + 1


def test_part_of_a_row_is_of_the_utterance_that_ends_and_begins_none():
    """A burst ends in the middle of a row of 20 ms: with silence behind it that row is loud all the same."""
    plans = planner()
    plans.listen(loud(1.013))
    plans.close()
    plans.listen(quiet(1))
    plans.cut(40)
    numbers = {speech.onset.number for hop in drain(plans) for speech in hop.speech if speech.onset}
    assert numbers == {0}


def test_what_is_muted_is_silence_in_frames_that_were_not_planned():
    plans = planner()
    plans.listen(loud(1))
    planned = drain(plans)
    plans.listen(loud(0.3))
    plans.mute()
    plans.listen(quiet(0.5))
    assert all(hop.is_silent for hop in drain(plans))
    assert not any(hop.is_silent for hop in planned)
