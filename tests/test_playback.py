"""Sound between frames and a card, both on clocks that the test owns."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from musetalk_cli.sinks.playback import APART_S, MARGIN_S, RAMP_S, Playback

RATE = 8_000
LEAD_S = 0.02
START = 1000.0


class Card:
    """Takes sound in blocks by a clock of its own.

    Args:
        playback: What it takes sound from.
        rate: Samples per second, as it says.
        block_s: Seconds of a block.
        ppm: How much faster than it says it is.
        noise_s: How far what it says about time is off, at the most.
    """

    def __init__(self, playback, rate=RATE, block_s=0.01, ppm=0, noise_s=0.0):
        self.playback, self.rate = playback, rate
        self.block = round(rate * block_s)
        self.sample_s = 1 / rate / (1 + ppm * 1e-6)
        self.noise_s = noise_s
        self.random = np.random.default_rng(0)
        self.blocks = []
        self.heard = START + 0.001 + LEAD_S

    def play_until(self, time):
        """Every block that is taken before a time."""
        while self.heard - LEAD_S <= time:
            now = self.heard - LEAD_S
            ahead = LEAD_S + self.random.uniform(-1, 1) * self.noise_s
            self.blocks.append(self.playback.take(self.block, now, ahead))
            self.heard += self.block * self.sample_s

    def stall(self, seconds):
        """It plays nothing for a while."""
        self.heard += seconds

    @property
    def played(self):
        return np.concatenate(self.blocks)

    def time_of(self, sample):
        return START + 0.001 + LEAD_S + sample * self.sample_s


def playback(rate=RATE, card_rate=RATE, channels=1):
    return Playback(rate, card_rate, channels, LEAD_S + 0.01)


def frames_of(sound, fps, rate=RATE):
    """The slices of a sound, one a frame."""
    count = int(len(sound) * Fraction(fps) / rate)
    bounds = [int(n * Fraction(rate) / fps) for n in range(count + 1)]
    return [sound[begin:end] for begin, end in pairwise(bounds)]


def run(card, sound, fps=25, first=START + 0.5, rate=RATE, late=lambda number: 0.0, ppm=0):
    """Puts each frame at its time, and lets the card play in between; gives those times."""
    times = []
    for number, samples in enumerate(frames_of(sound, fps, rate)):
        now = max(first + number / fps / (1 + ppm * 1e-6) + late(number), times[-1] if times else 0)
        card.play_until(now)
        card.playback.append(samples, now)
        times.append(now)
    return times


def clicks(seconds, fps=25, rate=RATE, length=40):
    """Something to be found in each frame: a short burst at its start."""
    sound = np.zeros((round(seconds * rate), 1), np.float32)
    shape = np.hanning(length)
    for number in range(int(seconds * fps)):
        at = int(number * Fraction(rate) / fps)
        sound[at : at + length, 0] = (0.8 * shape)[: len(sound) - at]
    return sound


def sine(seconds, hertz=100, rate=RATE, loud=0.5):
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)[
        :, None
    ]


def steepest(hertz=100, rate=RATE, loud=0.5):
    return loud * 2 * np.pi * hertz / rate


def peaks(played, fps, rate=RATE, length=40):
    """Where the bursts begin in what was played, as fractional samples."""
    found = np.flatnonzero(played[:, 0] > 0.4)
    groups = np.split(found, np.flatnonzero(np.diff(found) > rate / fps / 2) + 1)
    centres = [np.average(group, weights=played[group, 0]) for group in groups]
    return np.array(centres) - (length - 1) / 2


@pytest.mark.parametrize("fps", [10, 25, Fraction(30000, 1001), 60])
@pytest.mark.parametrize("block_s", [0.005, 0.01, 0.02])
def test_a_frame_is_heard_its_delay_after_it_was_put(fps, block_s):
    speaker = playback()
    card = Card(speaker, block_s=block_s)
    times = run(card, clicks(3, fps), fps)
    card.play_until(times[-1] + 0.5)
    heard = card.time_of(peaks(card.played, fps))
    assert len(heard) == len(times)
    apart = heard - np.array(times) - speaker.delay_s
    assert np.abs(apart).max() < 0.002
    assert speaker.breaks == 0
    assert speaker.delay_s < LEAD_S + block_s + RAMP_S + 0.02


def test_a_card_at_another_rate_with_two_channels_is_in_time_as_well():
    speaker = playback(16_000, 44_100, channels=2)
    card = Card(speaker, rate=44_100)
    sound = clicks(3, rate=16_000)
    times = run(card, np.concatenate([sound, -sound], axis=1), rate=16_000)
    card.play_until(times[-1] + 0.5)
    np.testing.assert_allclose(card.played[:, 0], -card.played[:, 1], atol=1e-6)
    heard = card.time_of(peaks(card.played, 25, 44_100, 40 * 44_100 / 16_000))
    assert np.abs(heard - np.array(times) - speaker.delay_s).max() < 0.002


def test_threads_that_wake_up_late_and_a_driver_that_is_not_exact_do_not_click():
    speaker = playback()
    card = Card(speaker, noise_s=0.01)
    late = np.random.default_rng(1).exponential(0.002, 2000).clip(max=0.009)
    run(card, sine(60), late=lambda number: late[number])
    begun = np.flatnonzero(card.played[:, 0])[0] + round(RATE * RAMP_S)
    assert speaker.breaks == 0
    assert np.abs(np.diff(card.played[begun:, 0])).max() < 1.03 * steepest()


@pytest.mark.parametrize(
    ("seconds", "ppm"),
    [(900, 200), *(pytest.param(3600, ppm, marks=pytest.mark.slow) for ppm in (200, -200))],
)
def test_a_card_that_runs_fast_or_slow_is_followed_without_a_click(seconds, ppm):
    """A sine of 50 Hz is heard in its phase all the time: never 2 ms early or late, and soon not a half."""
    fps, rate, hertz = 2, 1_000, 50
    speaker = playback(rate, rate)
    card = Card(speaker, rate=rate, block_s=0.05, ppm=ppm)
    block = sine(1 / fps, hertz, rate)
    first, taken, last, apart, steps = START + 0.5, 0, 0.0, [], []
    for number in range(seconds * fps):
        now = first + number / fps
        card.play_until(now)
        played, card.blocks = np.concatenate(card.blocks)[:, 0], []
        if number > 5:
            steps.append(np.abs(np.diff(played, prepend=last)).max())
            turns = hertz * (card.time_of(taken + np.arange(len(played))) - first - speaker.delay_s)
            phase = np.angle(np.sum(played * np.exp(-2j * np.pi * turns)) * 1j)
            apart.append(-phase / (2 * np.pi * hertz))
        taken, last = taken + len(played), played[-1]
        speaker.append(block, now)
    assert speaker.breaks == 0
    assert max(steps) < 1.03 * steepest(hertz, rate)
    assert np.abs(apart).max() < 0.002
    assert np.abs(apart[300 * fps :]).max() < 0.0005


def test_where_nothing_comes_sound_dies_away_is_counted_and_sets_in_again_in_time():
    """A stall of 0.2 s in the middle of a sine, after which everything stays later."""
    speaker = playback()
    card = Card(speaker)
    times = run(card, sine(4), late=lambda number: 0.2 * (number >= 50))
    card.play_until(times[-1] + 0.5)
    played = card.played[:, 0]
    assert np.abs(np.diff(played)).max() < 1.1 * steepest()
    assert speaker.breaks == 2, "the stall, and the end that nobody has told"
    silent = np.flatnonzero(np.abs(played) > 1e-3)
    gap = (
        silent[np.flatnonzero(np.diff(silent) > 100)[0]],
        silent[np.flatnonzero(np.diff(silent) > 100)[0] + 1],
    )
    assert card.time_of(gap[1]) == pytest.approx(times[50] + speaker.delay_s, abs=0.002)
    assert (gap[1] - gap[0]) / RATE == pytest.approx(0.2 + MARGIN_S, abs=0.015)


def test_each_time_that_the_card_finds_too_little_sound_is_heard_a_little_later():
    speaker = playback()
    card = Card(speaker)
    delays = []
    for number in range(60):
        now = START + 0.5 + number / 25 + 0.09 * (number // 5)
        card.play_until(now)
        speaker.append(np.full((RATE // 25, 1), 0.3, np.float32), now)
        delays.append(speaker.delay_s)
    assert delays[5] == pytest.approx(delays[0] + MARGIN_S, abs=0.002)
    assert (np.diff(delays) > -0.001).all()
    assert delays[-1] <= delays[0] + 0.1


def test_a_stall_in_silence_is_no_break():
    speaker = playback()
    card = Card(speaker)
    run(card, np.zeros((2 * RATE, 1), np.float32), late=lambda number: 0.2 * (number >= 25))
    assert speaker.breaks == 0


@pytest.mark.parametrize("shift_s", [0.08, -0.08])
def test_a_delay_that_changes_in_silence_is_met_before_the_next_words(shift_s):
    """The frames of a silence come closer together or further apart, and then at the old rate again."""
    speaker = playback()
    card = Card(speaker)
    sound = clicks(8)
    sound[2 * RATE : 5 * RATE] = 0
    times = run(card, sound, late=lambda number: shift_s * np.clip((number - 50) / 25, 0, 1))
    card.play_until(times[-1] + 0.5)
    assert speaker.breaks == 0
    heard = card.time_of(peaks(card.played, 25))
    spoken = np.array(times[:50] + times[125:]) + speaker.delay_s
    assert len(heard) == len(spoken)
    assert np.abs(heard - spoken).max() < 0.004


def test_of_speech_that_is_far_too_late_a_part_is_left_out_without_a_click():
    """From the middle on every frame comes 0.3 s sooner."""
    speaker = playback()
    card = Card(speaker)
    times = run(card, sine(8), late=lambda number: 0.3 * (number < 100))
    speaker.end()
    card.play_until(times[-1] + 1)
    played = np.abs(card.played[:, 0])
    assert np.abs(np.diff(card.played[:, 0])).max() < 1.2 * steepest()
    sounding = np.flatnonzero(played > 1e-3)
    assert (sounding[-1] - sounding[0]) / RATE == pytest.approx(7.7, abs=0.05)
    assert card.time_of(sounding[-1]) == pytest.approx(times[-1] + 0.04 + speaker.delay_s, abs=0.05)
    assert speaker.breaks == 0


def test_a_burst_does_not_grow_what_waits():
    speaker = playback()
    card = Card(speaker)
    times = run(card, sine(12), late=lambda number: -max(0, number - 50) / 25 * (number < 250))
    last = times[-1]
    card.play_until(last + 5)
    sounding = np.flatnonzero(np.abs(card.played[:, 0]) > 0.01)[-1]
    assert card.time_of(sounding) < last + 0.04 + speaker.delay_s + 2 * APART_S


def test_a_card_that_stood_still_is_met_again():
    speaker = playback()
    card = Card(speaker)
    sound = clicks(6)
    sound[RATE : 4 * RATE] = 0
    fed = frames_of(sound, 25)
    times = []
    for number, samples in enumerate(fed):
        now = START + 0.5 + number / 25
        if number == 40:
            card.play_until(now)
            stood = card.taken_at = len(card.played)
            card.stall(0.25)
        card.play_until(now)
        speaker.append(samples, now)
        times.append(now)
    card.play_until(times[-1] + 0.5)
    heard = peaks(card.played, 25)
    heard = np.where(heard < stood, card.time_of(heard), card.time_of(heard) + 0.25)
    spoken = np.array(times[:25] + times[100:]) + speaker.delay_s
    assert np.abs(heard - spoken).max() < 0.005


@pytest.mark.parametrize("phase", np.arange(0, 40, 4))
def test_muted_sound_is_gone_after_what_the_card_has_taken(phase):
    """At every phase of a frame; what comes after it keeps its time."""
    speaker = playback()
    card = Card(speaker)
    first = START + 0.5
    silence = np.zeros((RATE // 25, 1), np.float32)
    muted_at = first + 1 + phase / 1000
    for number, samples in enumerate(frames_of(sine(1.04), 25)):
        card.play_until(first + number / 25)
        speaker.append(samples, first + number / 25)
    card.play_until(muted_at)
    speaker.mute()
    for number in range(26, 50):
        card.play_until(first + number / 25)
        speaker.append(silence, first + number / 25)
    again = first + 2
    for number, samples in enumerate(frames_of(clicks(1), 25)):
        card.play_until(again + number / 25)
        speaker.append(samples, again + number / 25)
    card.play_until(again + 1.5)
    played = card.played[:, 0]
    assert np.abs(np.diff(played)).max() < 2 * steepest(200, loud=0.8) + 0.2
    until = np.flatnonzero(np.abs(played[: len(played) // 2]) > 0.01)[-1]
    assert card.time_of(until) < muted_at + LEAD_S + 0.01 + RAMP_S + 0.001
    heard = card.time_of(peaks(played[len(played) // 2 :, None], 25) + len(played) // 2)
    np.testing.assert_allclose(heard, again + np.arange(25) / 25 + speaker.delay_s, atol=0.003)
    assert speaker.breaks == 0


def test_the_end_is_played_and_told():
    speaker = playback()
    card = Card(speaker)
    sound = sine(1)
    times = run(card, sound)
    speaker.end()
    assert not speaker.drained.is_set()
    card.play_until(times[-1] + 0.5)
    assert speaker.drained.is_set()
    assert speaker.breaks == 0
    played = card.played[:, 0]
    assert np.abs(np.diff(played)).max() < 1.1 * steepest()
    sounding = np.flatnonzero(np.abs(played) > 1e-3)
    assert (sounding[-1] - sounding[0]) / RATE == pytest.approx(1, abs=0.01)


def test_an_end_before_anything_came_is_drained_at_once():
    speaker = playback()
    speaker.end()
    assert speaker.drained.is_set()


def test_a_card_that_broke_off_counts_where_something_was_to_be_heard():
    speaker = playback()
    card = Card(speaker)
    speaker.broke()
    assert speaker.breaks == 0
    run(card, sine(1))
    speaker.broke()
    assert speaker.breaks == 1
