from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.engine.sound_track import SoundTrack
from musetalk_cli.media.mixdown import Mixdown
from musetalk_cli.media.resample import StreamResampler
from musetalk_cli.timeline import Timeline


def voice(samples, seed=0):
    """Noise that swells and fades four times a second, float32."""
    noise = np.random.default_rng(seed).normal(0, 0.1, samples)
    return (noise * (1 + np.sin(np.arange(samples) / 600))).astype(np.float32)


def mixed(sound, rate=16_000, bounds=None):
    mixdown = Mixdown(rate, sound.shape[1])
    bounds = bounds or [0, len(sound)]
    return np.concatenate([*(mixdown.mix(sound[a:b]) for a, b in pairwise(bounds)), mixdown.flush()])


def stereo(left, factor):
    return np.stack([left, factor * left], axis=1).astype(np.float32)


@pytest.mark.parametrize("factor", [-1.0, -0.98, -0.8, -0.6, -1.3])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_of_channels_that_cancel_the_louder_is_heard_from_the_first_sample(factor, rate):
    sound = stereo(voice(rate), factor)
    np.testing.assert_array_equal(
        mixed(sound, rate)[: rate - rate // 50], sound[: rate - rate // 50, int(factor < -1)]
    )


@pytest.mark.parametrize("factor", [1.0, 0.5, 0.0, -0.2])
def test_ordinary_stereo_is_its_mean_to_the_bit(factor):
    sound = stereo(voice(20_000), factor)
    np.testing.assert_array_equal(mixed(sound), sound.mean(axis=1, dtype=np.float32))


@pytest.mark.parametrize("channels", [2, 3, 6, 10])
def test_channels_that_have_nothing_in_common_are_their_mean(channels):
    sound = np.stack([voice(20_000, seed) for seed in range(channels)], axis=1)
    np.testing.assert_array_equal(mixed(sound), sound.mean(axis=1, dtype=np.float32))


def test_two_of_six_channels_that_cancel_are_not_lost():
    sound = np.zeros((16_000, 6), np.float32)
    sound[:, 1], sound[:, 4] = voice(16_000), -voice(16_000)
    np.testing.assert_array_equal(mixed(sound), sound[:, 1])


def test_sound_that_turns_over_in_the_middle_is_heard_on_both_sides_without_a_click():
    left = 0.3 * np.sin(np.arange(48_000) * 0.05).astype(np.float32)
    turned = np.where(np.arange(48_000) % 32_000 < 16_000, left, -left)
    found = mixed(np.stack([left, turned], axis=1))
    np.testing.assert_array_equal(found[:16_000], left[:16_000])
    np.testing.assert_array_equal(np.abs(found[28_000:32_000]), np.abs(left[28_000:32_000]))
    assert np.abs(np.diff(found[24_000:])).max() < 0.03


@given(
    cuts=st.lists(st.integers(0, 9000), max_size=20),
    factors=st.lists(st.sampled_from([1.0, -1.0, -0.7, 0.0, 0.4]), min_size=3, max_size=3),
    rate=st.sampled_from([8000, 11_025, 16_000, 44_100]),
)
def test_the_mix_does_not_depend_on_how_the_sound_was_cut(cuts, factors, rate):
    sound = stereo(voice(9000), np.repeat(factors, 3000))
    np.testing.assert_array_equal(mixed(sound, rate, [0, *sorted(cuts), 9000]), mixed(sound, rate))


def test_silence_decides_nothing():
    quiet = stereo(voice(16_000) * 1e-4, -1.0)
    mixdown = Mixdown(16_000, 2)
    assert not mixdown.mix(quiet).any()
    assert mixdown.cancelled_at is None


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_stream_gives_as_many_samples_as_mono_does(rate):
    left = voice(rate)
    both, one = StreamResampler(rate), StreamResampler(rate)
    found = np.concatenate(
        [*(both.resample(stereo(left, -1.0)[at : at + 333]) for at in range(0, rate, 333)), both.flush()]
    )
    alone = np.concatenate([one.resample(left[:, None]), one.flush()])
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)


def test_it_is_said_once(caplog):
    sound = np.concatenate([stereo(voice(16_000), 1.0), stereo(voice(16_000), -1.0)])
    track = SoundTrack(Timeline(25), 16_000, 2)
    for at in range(0, len(sound), 1000):
        track.append(sound[at : at + 1000], 0.0)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "cancel each other from 1." in said
