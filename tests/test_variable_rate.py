import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.media.variable_rate import VariableResampler


def sine(hertz, rate, seconds):
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)[:, None]


def resample(sound, *steps, block=640):
    """A sound in blocks, each at the next of the steps."""
    resampler = VariableResampler(steps[0], sound.shape[1])
    blocks = [sound[at : at + block] for at in range(0, len(sound), block)]
    return np.concatenate(
        [resampler.resample(part, steps[number % len(steps)]) for number, part in enumerate(blocks)]
    )


@pytest.mark.parametrize(("rate", "card"), [(16_000, 48_000), (44_100, 48_000), (48_000, 16_000)])
def test_it_agrees_with_soxr_where_both_pass_everything(rate, card):
    """Speech-like noise below 3.5 kHz."""
    random = np.random.default_rng(1)
    sound = soxr.resample(random.uniform(-0.5, 0.5, 7000), 7000, rate).astype(np.float32)[:, None]
    out, wanted = resample(sound, rate / card)[:, 0], soxr.resample(sound[:, 0], rate, card, quality="VHQ")
    inside = slice(card // 50, len(out) - card // 50)
    assert np.abs(out[inside] - wanted[: len(out)][inside]).max() < 2e-3


@pytest.mark.parametrize(
    ("hertz", "rate", "card", "above"),
    [(7_900, 16_000, 48_000, 9_500), (3_000, 16_000, 48_000, 3_050), (12_000, 48_000, 16_000, 0)],
)
def test_nothing_is_heard_at_frequencies_that_are_not_there(hertz, rate, card, above):
    out = resample(sine(hertz, rate, 1), rate / card)[card // 10 : -card // 10, 0]
    window = np.hanning(len(out))
    spectrum = np.abs(np.fft.rfft(out * window)) / window.sum() * 2
    frequency = np.fft.rfftfreq(len(out), 1 / card)
    assert spectrum[frequency > above].max() < 10 ** (-60 / 20)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=20), st.sampled_from([0.3333, 0.91875, 1.0, 3.0]))
def test_cuts_change_nothing(cuts, step):
    sound = np.random.default_rng(3).uniform(-1, 1, (sum(cuts), 2)).astype(np.float32)
    resampler = VariableResampler(step, 2)
    parts = np.split(sound, np.cumsum(cuts)[:-1])
    found = np.concatenate([resampler.resample(part, step) for part in parts])
    whole = VariableResampler(step, 2).resample(sound, step)
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, atol=1e-5)


@given(st.lists(st.floats(0.25, 0.45), min_size=1, max_size=8), st.integers(1, 400))
def test_what_is_held_back_says_when_the_next_sample_comes(steps, block):
    """A single sample is heard where the count of what went out before, and what is held back, said."""
    resampler = VariableResampler(1 / 3, 1)
    given_out = sum(len(resampler.resample(np.zeros((block, 1), np.float32), step)) for step in steps)
    at = given_out + resampler.held_back(steps[-1])
    click = np.zeros((200, 1), np.float32)
    click[0] = 1
    out = resampler.resample(click, steps[-1])[:, 0]
    if len(out):
        assert abs(given_out + np.argmax(out) - at) <= 0.5 + 1e-6


def test_a_constant_stays_one_and_silence_silent():
    ones = resample(np.ones((4000, 1), np.float32), 0.334, 0.333, 0.3329)
    np.testing.assert_allclose(ones[200:], 1, atol=1e-5)
    assert not resample(np.zeros((4000, 1), np.float32), 1.1).any()


def test_a_step_that_changes_does_not_click():
    """No step between two samples is larger than the steepest of the sine's own, by more than 2 percent."""
    out = resample(sine(440, 16_000, 2), 0.3333, 0.335, 0.3317)[200:, 0]
    assert np.abs(np.diff(out)).max() < 1.02 * 2 * np.pi * 440 / 48_000


def test_what_came_is_forgotten_at_will():
    resampler = VariableResampler(1.0, 1)
    resampler.resample(np.ones((100, 1), np.float32), 1.0)
    resampler.clear()
    assert not resampler.resample(np.zeros((100, 1), np.float32), 1.0).any()
