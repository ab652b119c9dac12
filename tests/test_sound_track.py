from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musetalk_cli.engine.sound_track import SoundTrack
from musetalk_cli.media.resample import StreamResampler
from musetalk_cli.timeline import Timeline

RATES = (8000, 16_000, 44_100, 48_000)


def noise(samples, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (samples, channels)).astype(np.float32)


def cut(sound, bounds):
    return np.split(sound, [bound for bound in sorted(bounds) if bound < len(sound)])


@given(
    st.sampled_from(RATES),
    st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(12)]),
    st.integers(1, 2),
    st.lists(st.integers(0, 20_000), max_size=12),
    st.lists(st.integers(1, 6), min_size=1, max_size=6),
)
def test_slices_put_together_are_the_sound_however_it_came_and_was_taken(rate, fps, channels, bounds, takes):
    timeline = Timeline(fps)
    count = sum(takes)
    sound = noise(timeline.frame_start(count, rate) + 37, channels)
    track = SoundTrack(timeline, rate, channels)
    for part in cut(sound, bounds):
        track.append(part, 1.0)
    slices, start = [], 0
    for size in takes:
        frames = range(start, start + size)
        slices += track.take(frames, final=frames.stop == count)
        start = frames.stop
    for frame, found in enumerate(slices):
        first = timeline.frame_start(frame, rate)
        last = timeline.frame_start(frame + 1, rate) if frame < count - 1 else len(sound)
        assert np.array_equal(found.samples, sound[first:last])
    assert np.array_equal(np.concatenate([found.samples for found in slices]), sound)


@pytest.mark.parametrize("rate", RATES)
def test_what_the_encoder_hears_is_the_resampled_sound(rate):
    sound, resampler = noise(rate), StreamResampler(rate)
    track = SoundTrack(Timeline(Fraction(25)), rate, 1)
    heard = [track.append(part, 0.0) for part in cut(sound, range(0, rate, 777))]
    expected = np.concatenate([resampler.resample(sound), resampler.flush()])
    found = np.concatenate([*heard, track.flush()])
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_frame_arrived_when_the_block_with_its_first_sample_did():
    """Blocks of 1.5 frames: frame 0 and 1 begin in the first, 2 in the second, 3 and 4 in the third."""
    track = SoundTrack(Timeline(Fraction(25)), 16_000, 1)
    for number in range(4):
        track.append(noise(960), 100.0 + number)
    found = track.take(range(3), final=False) + track.take(range(3, 6), final=True)
    assert [sound.arrived for sound in found] == [100.0, 100.0, 101.0, 102.0, 102.0, 103.0]


def test_what_is_muted_keeps_its_length_and_what_comes_after_its_sound():
    track = SoundTrack(Timeline(Fraction(25)), 16_000, 2)
    sound = noise(640 * 6, 2)
    track.append(sound[: 640 * 4], 1.0)
    track.take(range(1), final=False)
    track.mute()
    track.append(sound[640 * 4 :], 2.0)
    found = track.take(range(1, 6), final=True)
    assert [len(one.samples) for one in found] == [640] * 5
    assert all(not one.samples.any() for one in found[:3])
    assert np.array_equal(np.concatenate([one.samples for one in found[3:]]), sound[640 * 4 :])


def test_no_frames_have_no_sound():
    track = SoundTrack(Timeline(Fraction(25)), 16_000, 1)
    track.append(noise(100), 0.0)
    assert track.take(range(0), final=False) == []


@given(
    st.sampled_from(RATES), st.lists(st.tuples(st.integers(0, 3000), st.booleans()), min_size=1, max_size=12)
)
def test_the_end_of_a_segment_is_told_once_with_the_frame_that_holds_its_last_sample(rate, parts):
    timeline = Timeline(Fraction(25))
    track, at, expected = SoundTrack(timeline, rate, 1), 0, {}
    for segment, (length, ends) in enumerate(parts):
        track.append(noise(length), 1.0, ends=ends, segment=segment)
        at += length
        if ends:
            frame = next(number for number in range(99) if timeline.frame_start(number + 1, rate) >= at)
            expected[frame] = (*expected.get(frame, ()), segment)
    track.append(noise(timeline.frame_start(100, rate) - at), 1.0)
    taken = [
        sound.ends for start in range(0, 100, 4) for sound in track.take(range(start, start + 4), final=False)
    ]
    assert {frame: ends for frame, ends in enumerate(taken) if ends} == expected


def test_an_interrupt_forgets_the_ends_of_what_it_cut_off():
    track = SoundTrack(Timeline(Fraction(25)), 16_000, 1)
    track.append(noise(1000), 1.0, ends=True, segment=0)
    track.mute()
    track.append(noise(1000), 1.0, ends=True, segment=1)
    assert [sound.ends for sound in track.take(range(3), final=True)] == [(), (), (1,)]
