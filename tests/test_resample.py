from itertools import pairwise

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.media.resample import StreamResampler

RATES = [8000, 11025, 22050, 44100, 48000, 96000]


def noise(samples, channels, seed):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (samples, channels)).astype(np.float32)


def streamed(sound, rate, bounds):
    resampler = StreamResampler(rate)
    blocks = [resampler.resample(sound[a:b]) for a, b in pairwise(bounds)]
    return np.concatenate([*blocks, resampler.flush()])


def whole(sound, rate):
    """The mean of the channels, resampled at once; padded or cut to `ceil(samples * 16000 / rate)`."""
    out = soxr.resample(sound.mean(axis=1), rate, 16000, quality="HQ")
    length = -(-len(sound) * 16000 // rate)
    return np.pad(out, (0, max(0, length - len(out))))[:length]


@settings(max_examples=120, deadline=None)
@given(data=st.data(), rate=st.sampled_from(RATES), channels=st.sampled_from([1, 2]))
def test_a_stream_cut_anywhere_is_the_whole_resampled_at_once(data, rate, channels):
    sizes = data.draw(
        st.lists(st.sampled_from([1, 1, 2, 3, 7, 160, 441, 960, 4801]), min_size=1, max_size=40)
    )
    bounds = [0, *np.cumsum(sizes).tolist()]
    sound = noise(bounds[-1], channels, seed=bounds[-1])
    found = streamed(sound, rate, bounds)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, whole(sound, rate), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", RATES)
def test_a_stream_of_single_samples_is_the_whole_resampled_at_once(rate, channels):
    sound = noise(4000, channels, seed=rate)
    np.testing.assert_allclose(streamed(sound, rate, range(4001)), whole(sound, rate), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_a_tone_in_blocks_of_20_ms_has_no_click_where_they_meet(rate):
    """Away from its ends it is the tone itself, taken 16000 times a second, to one part in ten thousand."""
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate).astype(np.float32)[:, None] * np.float32(0.5)
    found = streamed(tone, rate, [*range(0, 2 * rate, rate // 50), 2 * rate])
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16000)
    np.testing.assert_allclose(found[2000:-2000], expected[2000:-2000], rtol=0, atol=1e-4)
