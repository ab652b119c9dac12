"""Who rests keeps the frame rate while another speaks, and answers no later for it; on a simulated clock."""

from fractions import Fraction

import numpy as np
import pytest
from crowds import RATE, Crowd, as_spoken, at_once
from lives import speech

PERIOD = 0.04
BEGIN, END = 1.5, 5.0
SAID = speech(2.5)[:, None]
NOTHING = SAID[:0]


def longest_gap(stream, after=0.5):
    times = np.array([at for at, _ in stream.shown if at >= after])
    return np.diff(times).max()


def busy(most):
    """What a machine with other work takes longer, at random."""
    random = np.random.default_rng(0)
    return lambda: random.uniform(1, most)


@pytest.mark.parametrize("chunk", [Fraction(1, 10), Fraction(1, 2)])
@pytest.mark.parametrize("way", ["nothing comes", "microphone"])
def test_who_rests_is_shown_at_the_frame_rate_while_another_speaks(chunk, way):
    """Also in the first rounds: a batch of the demo takes longer than the frames that others have ahead."""
    crowd = Crowd(chunk, busy(1.4))
    speaker = crowd.add(at_once(SAID, BEGIN))
    resting = [crowd.add(as_spoken(NOTHING, 0, END) if way == "microphone" else ()) for _ in range(3)]
    crowd.until(END)
    assert sum(frame.fate.is_made for _, frame in speaker.shown) >= 55
    for stream in resting:
        assert longest_gap(stream) < 2 * PERIOD
        assert len(stream.shown) == pytest.approx(25 * END, abs=6)
        assert not any(frame.fate.is_made or frame.passed_over for _, frame in stream.shown)


@pytest.mark.parametrize("chunk", [Fraction(1, 10), Fraction(1, 2)])
@pytest.mark.parametrize("way", [at_once, lambda said, at: as_spoken(said, at, END)], ids=["sent", "spoken"])
def test_who_was_made_ahead_answers_as_soon_as_one_that_is_alone(chunk, way):
    began = []
    for others in (0, 3):
        crowd = Crowd(chunk)
        speaker = crowd.add(way(SAID, BEGIN))
        for _ in range(others):
            crowd.add()
        crowd.until(END)
        began.append(next(at for at, frame in speaker.shown if frame.request.utterance is not None))
    assert began[1] == pytest.approx(began[0], abs=0.02)


def test_silence_in_front_of_what_is_sent_ahead_is_not_waited_for():
    """As far as frames may wait: it is passed over, and the first word comes as soon as it is made."""
    began = {}
    for lead in (0.0, 0.7):
        crowd, silence = Crowd(Fraction(1, 10)), np.zeros((round(lead * RATE), 1), np.float32)
        speaker = crowd.add(at_once(np.concatenate((silence, SAID)), BEGIN))
        crowd.until(END)
        began[lead] = next(at for at, frame in speaker.shown if frame.request.utterance is not None)
    assert began[0.7] - began[0.0] < 0.1


@pytest.mark.parametrize("chunk", [Fraction(1, 10), Fraction(1, 2)])
def test_an_utterance_that_was_sent_with_the_one_before_passes_over_no_word(chunk):
    """A pause between them may be cut short, as far as frames wait; what is said keeps its pace."""
    pause = np.zeros((round(0.8 * RATE), 1), np.float32)
    crowd = Crowd(chunk)
    speaker = crowd.add(at_once(np.concatenate((SAID[:RATE], pause, SAID[RATE:])), BEGIN))
    crowd.until(END)
    for number in (0, 1):
        spoken = [
            at for at, frame in speaker.shown if (said := frame.request.utterance) and said.number == number
        ]
        assert len(spoken) > 25
        assert np.diff(spoken).min() > 0.9 * PERIOD


def test_who_rests_asks_for_few_turns_of_the_loop():
    """Each is a turn of all, so with one for every frame a turn would cost the square of the sessions."""
    crowd, turns, sessions = Crowd(Fraction(1, 5)), [], 10
    for number in range(sessions):
        crowd.add()
        crowd.until(0.031 * number)
    crowd.until(1.0)
    turn = crowd.loop.turn
    crowd.loop.turn = lambda: turns.append(turn())
    crowd.until(3.0)
    assert len(turns) < 2 * 25 * sessions / 3
    assert all(longest_gap(stream) < 1.1 * PERIOD for stream in crowd.streams)
