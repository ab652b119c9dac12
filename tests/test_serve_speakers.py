from types import SimpleNamespace

import numpy as np
import pytest
from clocks import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.config import SilenceLevel
from musetalk_cli.serve.refusals import NotFoundError, RefusedError
from musetalk_cli.serve.speakers import AHEAD_S, PAUSE_S, Speakers, Turn, loudest
from musetalk_cli.types import Utterance

RATE = 16_000
LEVEL = SilenceLevel(-40.0)
SPOKEN = Utterance(0, 0.0)


def sound(seconds=0.1, level=0.1):
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sqrt(2) * np.sin(2 * np.pi * 400 * time)).astype(np.float32)[:, None]


QUIET = sound(level=0.001)


class House:
    """Turns at one set of places, on a clock of their own."""

    def __init__(self, most):
        self.clock, self.speakers, self.waiting = FakeClock(100.0), Speakers(most), 0.0

    def turn(self, level=LEVEL):
        return Turn(self.speakers, level, self.clock, lambda: self.waiting)

    def show(self, turn, seconds, utterance=None):
        for _ in range(round(seconds * 25)):
            self.clock.time += 0.04
            turn.shown(SimpleNamespace(request=SimpleNamespace(utterance=utterance)))


def admit(turn, samples, *, ends=False):
    return turn.admit(samples, RATE, ends=ends)


def test_silence_takes_no_place_and_speech_does():
    house = House(1)
    turn = house.turn()
    assert admit(turn, QUIET)
    assert house.speakers.now == 0
    assert admit(turn, sound())
    assert house.speakers.now == 1


def test_who_speaks_while_all_places_are_taken_is_refused_up_to_a_pause():
    house = House(1)
    first, second = house.turn(), house.turn()
    assert admit(first, sound())
    assert not admit(second, sound())
    first.end()
    assert not admit(second, sound()), "half a word is worse than none"
    assert admit(second, QUIET)
    house.clock.time += PAUSE_S / 2
    assert not admit(second, sound())
    house.clock.time += 1.1 * PAUSE_S
    assert admit(second, QUIET)
    assert admit(second, sound())


def test_a_pause_in_which_nothing_comes_lets_the_next_sound_try():
    house = House(1)
    first, second = house.turn(), house.turn()
    assert admit(first, sound())
    assert not admit(second, sound())
    first.end()
    house.clock.time += PAUSE_S - 0.1
    assert not admit(second, sound())
    house.clock.time += PAUSE_S + 0.1
    assert admit(second, sound())


def test_a_session_that_has_ended_takes_no_place():
    house = House(1)
    gone = house.turn()
    gone.end()
    admit(gone, sound())
    with pytest.raises(NotFoundError, match="has ended"):
        gone.claim()
    assert house.speakers.now == 0


def test_the_end_of_a_refused_segment_lets_the_next_one_try():
    house = House(1)
    first, second = house.turn(), house.turn()
    admit(first, sound())
    assert not admit(second, sound())
    assert not admit(second, QUIET[:0], ends=True), "and is not told to anybody as an end"
    first.end()
    assert admit(second, sound())


def test_a_loud_block_that_ends_a_refused_segment_is_refused_too():
    house = House(1)
    first, second = house.turn(), house.turn()
    admit(first, sound())
    assert not admit(second, sound(), ends=True)
    first.end()
    assert admit(second, sound())


def test_an_interrupt_ends_a_refusal():
    house = House(1)
    first, second = house.turn(), house.turn()
    admit(first, sound())
    assert not admit(second, sound())
    second.interrupt()
    assert not admit(second, sound()), "it asks again, and is told again"
    assert second.refused == 2
    first.end()
    second.interrupt()
    assert admit(second, sound())
    second.interrupt()
    assert house.speakers.now == 1, "who has a place keeps it"


def test_a_place_is_given_back_after_a_pause_and_not_before():
    house = House(1)
    turn = house.turn()
    admit(turn, sound())
    house.show(turn, 2.0, SPOKEN)
    assert house.speakers.now == 1
    house.show(turn, 0.9 * PAUSE_S)
    assert house.speakers.now == 1
    house.show(turn, 0.2 * PAUSE_S)
    assert house.speakers.now == 0


def test_a_pause_within_what_was_sent_ahead_keeps_the_place():
    house = House(1)
    turn = house.turn()
    admit(turn, sound())
    house.waiting = 2 * AHEAD_S
    house.show(turn, 3 * PAUSE_S)
    assert house.speakers.now == 1
    house.waiting = 0.0
    house.show(turn, 0.1)
    assert house.speakers.now == 0


def test_a_claim_before_the_sound_is_kept_and_refused_like_the_sound():
    house = House(1)
    first, second = house.turn(), house.turn()
    first.claim()
    first.check()
    for refuses in (second.claim, second.check):
        with pytest.raises(RefusedError, match="sustains 1 speaker at once"):
            refuses()
    house.show(first, 1.1 * PAUSE_S)
    second.check()
    second.claim()


def test_without_a_level_of_silence_a_place_is_kept_to_the_end():
    house = House(1)
    turn = house.turn(None)
    assert admit(turn, np.zeros((160, 1), np.float32))
    house.show(turn, 5 * PAUSE_S)
    assert house.speakers.now == 1
    turn.end()
    assert house.speakers.now == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40))
def test_there_are_never_more_speakers_than_places(steps):
    house = House(2)
    turns = [house.turn() for _ in range(5)]
    for number, speaks in steps:
        if speaks:
            admit(turns[number], sound())
        else:
            turns[number].end()
        assert house.speakers.now <= 2


@pytest.mark.parametrize("length", [1, 7, 100, 320, 321, 500])
def test_the_loudest_20_ms_count(length):
    samples = sound(1.0, 0.001)
    samples[5000 : 5000 + length] = 0.5
    windows = [samples[start : start + 320] for start in range(0, RATE, 320)]
    expected = max(np.sqrt(np.square(window, dtype=np.float64).mean()) for window in windows)
    assert loudest(samples, RATE) == pytest.approx(expected)
    assert loudest(samples[:0], RATE) == 0.0


def test_a_click_at_the_end_of_a_block_is_no_speech():
    samples = np.zeros((321, 1), np.float32)
    samples[-1] = 0.5
    assert loudest(samples, RATE) == pytest.approx(0.5 / np.sqrt(320))
