"""Cuts, gaps, smoothing and trembling, against references that know nothing of the code under test."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from musetalk_cli.face.motion import (
    difference,
    find_cuts,
    gaps,
    hold_steady,
    interpolate,
    jitter,
    smooth,
    thumbnail,
)

CUTOFFS = (0.02, 0.04, 0.12)
"""Cycles per frame: 1 and 3 Hz at 25 frames per second lie in it."""


def noise(count, columns, level=1.0, seed=0):
    return np.random.default_rng(seed).normal(0, level, (count, columns))


def gentle(count, columns=2, seed=0):
    """A motion that moves by less than a pixel a frame, float64 `[count, columns]`."""
    rng = np.random.default_rng(seed)
    frames = np.arange(count)[:, None]
    return 300 + 12 * np.sin(frames / 40 + rng.uniform(0, 6, columns)) + frames * rng.normal(0, 0.1, columns)


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_a_constant_stays_exactly_and_a_line_to_a_thousandth_of_a_pixel(cutoff):
    still = np.full((90, 68, 2), 123.456)
    np.testing.assert_array_equal(smooth(still, cutoff), still)
    line = np.arange(90.0)[:, None, None] * np.linspace(-9, 9, 136).reshape(68, 2) + 200
    np.testing.assert_allclose(smooth(line, cutoff), line, atol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_less_than_three_frames_stay_as_they_are_and_are_a_copy(count):
    points = noise(count, 4)
    result = smooth(points, 0.1)
    np.testing.assert_array_equal(result, points)
    result += 1
    assert not np.any(result == points)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_few_frames_are_smoothed(count):
    points = gentle(count) + 0.1 * noise(count, 2)
    assert np.abs(smooth(points, 0.05) - points).max() < 0.5


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_nothing_lags(cutoff):
    frames = np.arange(-100, 101)
    bump = 20 * np.exp(-np.square(frames / 15))[:, None]
    result = smooth(bump, cutoff)[:, 0]
    np.testing.assert_allclose(result, result[::-1], atol=1e-4)
    assert result.argmax() == 100
    assert result.max() < 20


@settings(max_examples=15, deadline=None)
@given(st.integers(3, 60), st.sampled_from(CUTOFFS), st.integers(0, 9))
def test_time_may_run_backward(count, cutoff, seed):
    points = 400 + 4 * noise(count, 3, seed=seed)
    points[count // 2] += 60
    np.testing.assert_allclose(smooth(points[::-1], cutoff), smooth(points, cutoff)[::-1], atol=1e-2)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("amplitude", [1, 30])
def test_it_is_a_low_pass_that_halves_at_the_cutoff(cutoff, amplitude):
    frames = np.arange(600)
    middle = slice(200, 400)
    for share, low, high in ((0.25, 0.99, 1.0), (0.5, 0.93, 0.95), (1, 0.49, 0.51), (2, 0.04, 0.08)):
        wave = amplitude * np.sin(2 * np.pi * share * cutoff * frames + 0.3)[:, None]
        result = smooth(wave, cutoff)[middle]
        gain = float((result * wave[middle]).sum() / np.square(wave[middle]).sum())
        assert low <= gain <= high
        assert np.abs(result - gain * wave[middle]).max() < 0.01 * amplitude, "in phase"


@pytest.mark.parametrize("cutoff", CUTOFFS)
def test_it_is_the_cubic_smoothing_spline(cutoff):
    interpolation = pytest.importorskip("scipy.interpolate", reason="scipy is the reference")
    points = gentle(150) + 0.1 * noise(150, 2)
    weight = (2 * np.pi * cutoff) ** -4
    spline = interpolation.make_smoothing_spline(np.arange(150.0), points, lam=weight)
    np.testing.assert_allclose(smooth(points, cutoff), spline(np.arange(150.0)), atol=1e-3)


def test_noise_is_reduced_as_far_as_the_filter_lets_it_through():
    cutoff = 0.04
    frequencies = np.linspace(0, 0.5, 5001)
    through = np.sqrt(np.mean(np.square(1 / (1 + (frequencies / cutoff) ** 4))))
    left = smooth(noise(1000, 40), cutoff)[100:-100].std()
    assert left == pytest.approx(through, rel=0.1)
    assert left < 0.3


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("trembling", [0, 0.3])
@pytest.mark.parametrize("wrong", [[0], [60], [119], [40, 41], [30, 60, 90]])
def test_a_wrong_frame_is_removed(cutoff, trembling, wrong):
    truth = gentle(120, 136).reshape(120, 68, 2)
    points = truth + trembling * noise(120, 136).reshape(truth.shape)
    points[wrong] += (50, -50)
    away = np.sqrt(np.square(smooth(points, cutoff) - truth).sum(axis=2).mean(axis=1))
    # The first and the last frame are continued from their neighbours, not led by both sides.
    assert away.max() < 1


@pytest.mark.parametrize("trembling", [0, 0.3, 1])
@pytest.mark.parametrize("frames", [5, 10, 20])
@pytest.mark.parametrize("cutoff", [0.04, 0.12])
def test_a_quick_motion_between_rests_is_no_fault(cutoff, frames, trembling):
    interpolation = pytest.importorskip("scipy.interpolate", reason="scipy is the reference")
    truth = np.interp(np.arange(160), [80, 80 + frames], [100, 140])[:, None] * np.ones((1, 20))
    points = truth + trembling * noise(160, 20)
    spline = interpolation.make_smoothing_spline(np.arange(160.0), points, lam=(2 * np.pi * cutoff) ** -4)
    assert np.abs(smooth(points, cutoff) - spline(np.arange(160.0))).max() < 0.2


def test_columns_do_not_mix_except_for_what_counts_as_wrong():
    points = gentle(80, 4) + 0.2 * noise(80, 4)
    together = smooth(points.reshape(80, 2, 2), 0.08).reshape(80, 4)
    apart = np.concatenate([smooth(points[:, [k]], 0.08) for k in range(4)], axis=1)
    assert np.abs(together - apart).max() < 0.1


values = st.floats(-50, 2000, allow_nan=False)
tracks = st_np.arrays(np.float64, st.tuples(st.integers(0, 30), st.integers(1, 4)), elements=values)
slow = st.tuples(
    st.one_of(st.floats(-3, 3), st.floats(0, 500)), st.lists(st.floats(-0.8, 0.8), max_size=40)
).map(lambda start: np.cumsum([start[0], *start[1]])[:, None])


@given(st.one_of(tracks, slow))
def test_held_numbers_stay_near_and_change_only_when_they_must(track):
    held = hold_steady(track)
    assert held.dtype == np.int64
    assert held.shape == track.shape
    np.testing.assert_array_equal(held[:1], track[:1].astype(np.int64))
    for column in range(track.shape[1]):
        for index in range(1, len(track)):
            value, now, before = track[index, column], held[index, column], held[index - 1, column]
            assert abs(now - int(value)) <= 1
            closer, further = 0.5 - 1e-6, 0.5 + 1e-6
            if before in {int(value - closer), int(value), int(value + closer)}:
                assert now == before
            elif before not in {int(value - further), int(value), int(value + further)}:
                assert now == int(value)


@given(st.integers(-20, 900), st.floats(0, 0.99), st.integers(0, 99))
def test_noise_of_less_than_half_a_pixel_changes_nothing(start, part, seed):
    noisy = start + part + np.random.default_rng(seed).uniform(-0.24, 0.24, (50, 1))
    assert len(np.unique(hold_steady(noisy))) == 1


def test_numbers_are_truncated_towards_zero_also_below_it():
    """As `face_box` does: a face that starts at -0.9 starts at 0, and one at -1.0 left of the frame."""
    values = np.array([[-0.9], [-1.0], [-1.4], [-1.6], [-0.6], [-0.4], [0.2], [1.4], [1.6], [1.0], [0.3]])
    assert hold_steady(values)[:, 0].tolist() == [0, 0, 0, -1, -1, 0, 0, 0, 1, 1, 0]


def test_a_ramp_is_followed_and_each_column_is_on_its_own():
    ramp = np.arange(60) * 0.4
    border = 100 + 0.3 * np.tile([1, -1], 30)
    held = hold_steady(np.stack([ramp, border], axis=1))
    assert np.abs(held[:, 0] - ramp).max() < 1.5
    assert (np.diff(held[:, 0]) >= 0).all()
    assert len(np.unique(held[:, 1])) == 1
    np.testing.assert_array_equal(
        held, np.concatenate([hold_steady(c) for c in (ramp[:, None], border[:, None])], 1)
    )


@pytest.mark.parametrize("level", [0.2, 1.5, 6])
def test_jitter_is_the_deviation_of_the_noise(level):
    steady = np.arange(2000)[:, None] * (0.7, -2.0) + 300
    assert jitter([steady]) == pytest.approx(0, abs=1e-9)
    parts = np.split(steady + noise(2000, 2, level), [500, 501, 503, 1200])
    assert jitter(parts) == pytest.approx(level, rel=0.06)
    assert jitter([part[:2] for part in parts]) == 0
    assert jitter([]) == 0


def test_jumps_between_runs_are_no_jitter():
    assert jitter([np.zeros((10, 2)), np.full((10, 2), 500.0)]) == 0


def picture(seed):
    """Smooth blobs with all levels: uint8 `[180, 640, 3]`, wide enough to pan in."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (7, 21, 3))
    rows, columns = np.linspace(0, 5.99, 180), np.linspace(0, 19.99, 640)
    r, c = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r)[:, None, None], (columns - c)[None, :, None]
    top = coarse[r][:, c] * (1 - fc) + coarse[r][:, c + 1] * fc
    below = coarse[r + 1][:, c] * (1 - fc) + coarse[r + 1][:, c + 1] * fc
    return (top * (1 - fr) + below * fr).astype(np.uint8)


def differences(frames):
    small = [thumbnail(frame) for frame in frames]
    return [0.0, *(difference(b, a) for a, b in pairwise(small))]


def window(image, x):
    return image[:, x : x + 320]


def grainy(image, seed, level=12):
    grain = np.random.default_rng(seed).normal(0, level, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def test_a_cut_is_found_at_its_frame():
    one, other = picture(1), picture(2)
    clip = [window(one, 2 * n) for n in range(15)] + [window(other, 2 * n) for n in range(12)]
    assert find_cuts(differences([grainy(frame, n) for n, frame in enumerate(clip)])) == [15]


def test_cuts_in_a_row_are_found():
    clip = [window(picture(3 + shot), 0) for shot in range(4) for _ in range(8)]
    assert find_cuts(differences(clip)) == [8, 16, 24]


@pytest.mark.parametrize("step", [1, 5, 12])
def test_a_moving_camera_is_no_cut(step):
    """From rest, and back to it."""
    places = [0] * 8 + [step * n for n in range(25)] + [24 * step] * 8
    found = differences([window(picture(1), place) for place in places])
    assert max(found) > 9 or step < 12
    assert find_cuts(found) == []


def test_noise_and_a_fade_are_no_cuts():
    rng = np.random.default_rng(0)
    assert find_cuts(differences([rng.integers(0, 256, (36, 64, 3), np.uint8) for _ in range(20)])) == []
    one, other = window(picture(1), 0).astype(float), window(picture(2), 0)
    fade = [(one * (1 - share) + other * share).astype(np.uint8) for share in np.linspace(0, 1, 13)]
    assert find_cuts(differences(fade)) == []


def test_a_flash_and_a_jolt_count_as_cuts():
    image = picture(1)
    rest, end = window(image, 0), window(image, 300)
    flash = np.full((180, 320, 3), 255, np.uint8)
    assert find_cuts(differences([rest] * 8 + [flash] + [rest] * 8)) == [8, 9]
    assert find_cuts(differences([rest] * 8 + [window(image, 150)] + [end] * 8)) == [8, 9]


@pytest.mark.parametrize("found", [[], [0.0], [99.0], [0.0, 0.0]])
def test_next_to_nothing_has_no_cuts(found):
    assert find_cuts(found) == []


def test_two_pictures_are_two_shots():
    assert find_cuts([0.0, 40.0]) == [1]


def test_thumbnails_and_their_difference():
    assert thumbnail(np.zeros((300, 100, 3), np.uint8)).shape == (36, 64)
    one = np.random.default_rng(0).integers(0, 256, (36, 64)).astype(np.uint8)
    other = np.random.default_rng(1).integers(0, 256, (36, 64)).astype(np.uint8)
    expected = np.mean([abs(int(a) - int(b)) for a, b in zip(one.flat, other.flat, strict=True)])
    assert difference(one, other) == difference(other, one) == pytest.approx(expected, abs=5e-4)
    assert difference(one, one) == 0


@given(st.lists(st.booleans(), max_size=30), st.data())
def test_gaps_are_the_unseen_frames_between_seen_ones(seen, data):
    start = data.draw(st.integers(0, len(seen)))
    end = data.draw(st.integers(start, len(seen)))
    found = gaps(seen, start, end)
    missing = [
        number
        for number in range(start, end)
        if not seen[number] and any(seen[start:number]) and any(seen[number + 1 : end])
    ]
    assert [number for gap in found for number in range(*gap)] == missing
    for a, b in found:
        assert a > start
        assert b < end
        assert seen[a - 1]
        assert seen[b]


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 99))
def test_a_gap_is_filled_by_lines_and_nothing_else_changes(before, length, seed):
    points = np.random.default_rng(seed).normal(0, 100, (before + length + 4, 3, 2))
    filled = points.copy()
    interpolate(filled, (before, before + length))
    at = np.arange(before, before + length)
    for column in np.ndindex(3, 2):
        ends = [before - 1, before + length]
        expected = np.interp(at, ends, points[(ends, *column)])
        np.testing.assert_allclose(filled[(at, *column)], expected, atol=1e-9)
    kept = np.setdiff1d(np.arange(len(points)), at)
    np.testing.assert_array_equal(filled[kept], points[kept])
