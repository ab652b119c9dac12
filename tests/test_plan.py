"""Boxes of a whole clip: gaps, cuts, smoothing, one size and the turn of the loop."""

from fractions import Fraction

import numpy as np
import pytest
from face_graphs import face_points
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.errors import InputError
from musetalk_cli.face.boxes import add_margin, crop_box, face_box
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.preparation.options import PrepareOptions
from musetalk_cli.preparation.plan import Plan, make_plan
from musetalk_cli.types import Box

SIZE = (320, 240)
FPS = Fraction(25)


def face(x=160.0, y=120.0, radius=40.0, detection=None):
    points = face_points((x, y), radius)
    low, high = points.min(axis=0), points.max(axis=0)
    return FaceLandmarks(
        points, detection or Box(int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1)
    )


def plan(faces, *, differences=None, fps=FPS, size=SIZE, extra_margin=0, cutoff_hz=3.0, **options) -> Plan:
    return make_plan(
        faces,
        [1.0] * len(faces) if differences is None else differences,
        fps=fps,
        size=size,
        options=PrepareOptions(**options),
        extra_margin=extra_margin,
        cutoff_hz=cutoff_hz,
    )


def clip(count, *, trembling=0.0, seed=0, gone=()):
    """Faces that move slowly, with noise on every point alike; None in the frames `gone`."""
    rng = np.random.default_rng(seed)
    shaken = rng.normal(0, trembling, (count, 2)) if trembling else np.zeros((count, 2))
    faces = [
        face(140 + 0.3 * n + shaken[n, 0], 120 + 8 * np.sin(n / 30) + shaken[n, 1]) for n in range(count)
    ]
    return [None if n in gone else one for n, one in enumerate(faces)]


def with_cuts(count, cuts):
    return [60.0 if n in cuts else 1.0 for n in range(count)]


def check(found, size=SIZE):
    for one in found.faces:
        if one is not None:
            assert one.box.clamp(*size) == one.box
            assert not one.box.empty
            assert one.crop == crop_box(one.box)
            assert one.points.shape == (68, 2)


flags = st.lists(st.booleans(), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    seen=flags,
    cuts=st.sets(st.integers(1, 39), max_size=2),
    max_gap=st.sampled_from([0, 0.04, 0.1, 0.12, 0.4, 2]),
    smooth=st.booleans(),
)
def test_short_gaps_are_filled_within_a_shot_and_long_ones_and_ends_are_not(seen, cuts, max_gap, smooth):
    faces = [one if there else None for one, there in zip(clip(len(seen)), seen, strict=True)]
    found = plan(faces, differences=with_cuts(len(seen), cuts), max_gap=max_gap, smooth=smooth)
    assert len(found.faces) == len(seen)
    assert set(found.cuts) <= cuts
    borders = [0, *found.cuts, len(seen)]
    for number, there in enumerate(seen):
        start = max(border for border in borders[:-1] if border <= number)
        end = min(border for border in borders[1:] if border > number)
        before = [n for n in range(start, number) if seen[n]]
        after = [n for n in range(number + 1, end) if seen[n]]
        length = after[0] - before[-1] - 1 if before and after else np.inf
        filled = not there and length <= max_gap * 25 + 1e-9
        got = found.faces[number]
        assert (got is not None) == (there or filled)
        if got is not None:
            assert got.interpolated == (not there)
            if filled and not smooth:
                share = (number - before[-1]) / (length + 1)
                expected = (1 - share) * faces[before[-1]].points + share * faces[after[0]].points
                np.testing.assert_allclose(got.points, expected)
    check(found)
    assert found.animated == [n for n, one in enumerate(found.faces) if one is not None]


@pytest.mark.parametrize(
    ("fps", "frames"), [(Fraction(30000, 1001), 11), (Fraction(25), 10), (Fraction(10), 4)]
)
def test_a_gap_may_last_its_seconds_exactly(fps, frames):
    for length, there in ((frames, True), (frames + 1, False)):
        faces = clip(30, gone=range(5, 5 + length))
        found = plan(faces, fps=fps, max_gap=0.4)
        assert (found.faces[5] is not None) == there


placed = st.builds(
    face,
    x=st.floats(-60, 380),
    y=st.floats(-60, 300),
    radius=st.floats(1, 150),
    detection=st.one_of(
        st.none(),
        st.builds(lambda x, y: Box(x, y, x + 50, y + 60), st.integers(-90, 330), st.integers(-90, 250)),
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    faces=st.lists(st.one_of(placed, st.none()), min_size=1, max_size=12),
    shift=st.sampled_from([0, -30, 30]),
    margin=st.sampled_from([0, 10, 200]),
)
def test_without_smoothing_every_box_is_that_of_its_frame(faces, shift, margin):
    found = plan(faces, smooth=False, max_gap=0, bbox_shift=shift, extra_margin=margin)
    for one, got in zip(faces, found.faces, strict=True):
        rule = one and face_box(one.points, one.detection, frame=SIZE, bbox_shift=shift)
        if rule and min(rule.width, rule.height) >= 4:
            assert got.box == add_margin(rule, margin, SIZE[1])
            np.testing.assert_array_equal(got.points, one.points)
        else:
            assert got is None
    check(found)


@settings(max_examples=40, deadline=None)
@given(
    faces=st.lists(st.one_of(placed, st.none()), min_size=1, max_size=12),
    shift=st.integers(-60, 60),
    margin=st.integers(0, 100),
    smooth=st.booleans(),
)
def test_boxes_stay_inside_and_one_size_only_grows_them(faces, shift, margin, smooth):
    options = {"smooth": smooth, "bbox_shift": shift, "extra_margin": margin}
    own = plan(faces, **options)
    same = plan(faces, constant_size=True, **options)
    check(own)
    check(same)
    assert own.animated == same.animated
    sizes = {(own.faces[n].box.width, own.faces[n].box.height) for n in own.animated}
    for number in own.animated:
        before, after = own.faces[number].box, same.faces[number].box
        assert after.intersect(before) == before
        assert (after.width, after.height) == (max(w for w, _ in sizes), max(h for _, h in sizes))


def test_one_size_keeps_its_middle_where_the_frame_lets_it():
    faces = [face(160, 120, 30), face(160, 120, 50), face(25, 120, 20)]
    boxes = [one.box for one in plan(faces, smooth=False, constant_size=True).faces]
    own = [one.box for one in plan(faces, smooth=False).faces]
    assert {(box.width, box.height) for box in boxes} == {(own[1].width, own[1].height)}
    assert abs((boxes[0].x1 + boxes[0].x2) - (own[0].x1 + own[0].x2)) <= 1
    assert abs((boxes[0].y1 + boxes[0].y2) - (own[0].y1 + own[0].y2)) <= 1
    assert boxes[1] == own[1]
    assert boxes[2].x1 == 0


def test_a_margin_is_below_the_chin_as_far_as_the_frame_goes():
    bare, more = (plan([face(y=y) for y in (120, 200)], smooth=False, extra_margin=m) for m in (0, 10))
    assert more.faces[0].box == bare.faces[0].box._replace(y2=bare.faces[0].box.y2 + 10)
    assert more.faces[1].box.y2 == SIZE[1]


def test_a_shift_moves_the_top_by_twice_itself():
    boxes = [plan([face()], smooth=False, bbox_shift=shift).faces[0].box for shift in (0, 7, -5)]
    assert boxes[1] == boxes[0]._replace(y1=boxes[0].y1 + 14)
    assert boxes[2] == boxes[0]._replace(y1=boxes[0].y1 - 10)


@pytest.mark.parametrize("trembling", [0.5, 2])
def test_smoothing_takes_the_trembling_out_and_follows_the_face(trembling):
    truth = clip(120)
    found = plan(clip(120, trembling=trembling), cutoff_hz=1.0)
    assert found.jitter_after < 0.5 * found.jitter_before
    # The box's middle trembles as the points do: in whole pixels, of which only the bottom moves the top.
    assert found.jitter_before == pytest.approx(trembling, rel=0.35)
    for got, one in zip(found.faces, truth, strict=True):
        expected = face_box(one.points, one.detection, frame=SIZE)
        assert np.abs(np.array(got.box) - expected).max() < 2 + 2 * trembling
    rough = plan(clip(120, trembling=trembling), smooth=False)
    assert rough.jitter_after == rough.jitter_before == found.jitter_before


def test_a_still_face_has_one_box():
    """Although every side of it rests on the border between two pixels."""
    noisy = np.random.default_rng(0).normal(0, 0.15, (60, 2))
    found = plan([face(160 + dx, 120 + dy) for dx, dy in noisy])
    assert len({one.box for one in found.faces}) == 1
    assert found.jitter_after == 0


def test_nothing_is_smoothed_across_a_cut_or_a_long_gap():
    here, there = [face(100)] * 20, [face(200, radius=60)] * 20
    for faces, differences in ((here + there, with_cuts(40, {20})), (here + [None] * 20 + there, None)):
        found = plan(faces, differences=differences)
        boxes = [one and one.box for one in found.faces]
        assert len(set(boxes[:20])) == len(set(boxes[-20:])) == 1
        assert boxes[0] == face_box(face(100).points, face(100).detection, frame=SIZE)
        assert found.jitter_before == 0


def test_a_gap_is_not_filled_across_a_cut():
    faces, differences = clip(30, gone=(14, 15)), with_cuts(30, {15})
    assert plan(faces).faces[14].interpolated
    found = plan(faces, differences=differences)
    assert found.cuts == [15]
    assert [n for n in range(30) if n not in found.animated] == [14, 15]


def test_a_filled_face_that_leaves_the_frame_on_the_left_has_the_box_of_its_points():
    """The rule takes the detector's box there, which a face that was not seen has not."""
    faces = [face(x, detection=Box(3, 60, 50, 150)) for x in (20, 22, 24)]
    found = plan([faces[0], None, faces[2]], smooth=False)
    low, high = faces[1].points.min(axis=0), faces[1].points.max(axis=0)
    assert found.faces[0].box == Box(3, 60, 50, 150)
    assert found.faces[1].box == Box(0, *(int(v) for v in (np.floor(low[1]), *np.ceil(high))))


def test_a_wrong_frame_does_not_move_the_box():
    faces = clip(60)
    boxes = [one.box for one in plan(faces).faces]
    faces[30] = face(230, 60, 55)
    again = [one.box for one in plan(faces).faces]
    assert np.abs(np.array(again) - boxes).max() <= 1


def test_a_face_too_small_to_use_is_a_gap():
    tiny = face(160, 120, 1.5)
    faces = [*clip(10), tiny, *clip(10)]
    found = plan(faces)
    assert found.faces[10].interpolated
    assert found.faces[10].box.width > 60
    assert plan([tiny] * 5).faces == [None] * 5


def test_a_face_without_a_detection_is_no_face():
    bare = FaceLandmarks(face().points, None)
    assert plan([bare] * 4).faces == [None] * 4


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0, 9.0, 90.0]), min_size=1, max_size=40), st.booleans())
def test_trim_takes_the_quietest_frames_near_the_ends(differences, trim):
    faces = [face()] * len(differences)
    found = plan(faces, differences=differences, trim="auto" if trim else "off")
    count, cuts = len(faces), found.cuts
    reach = count // 4
    starts = [(differences[n + 1], n) for n in range(min(reach + 1, count - 1)) if n + 1 not in cuts]
    ends = [(differences[n], count - n) for n in range(max(1, count - 1 - reach), count) if n not in cuts]
    start = min(starts)[1] if starts else 0
    end = count - min(ends)[1] if ends else count - 1
    assert (found.seam.best_start, found.seam.best_end) == (start, end)
    first, last = (start, end) if trim else (0, count - 1)
    assert first <= last
    assert found.first == first
    assert len(found.faces) == last - first + 1
    if last > first:
        assert (found.seam.start, found.seam.end) == (differences[first + 1], differences[last])


def test_trimming_keeps_each_face_with_its_frame():
    differences = [5.0] * 40
    differences[4], differences[35] = 1.0, 0.5
    whole, part = (plan(clip(40), differences=differences, trim=trim) for trim in ("off", "auto"))
    assert part.first == 3
    assert [one.box for one in part.faces] == [one.box for one in whole.faces[3:36]]
    assert part.seam.start == 1.0
    assert part.seam.end == 0.5


@pytest.mark.parametrize(
    "values",
    [
        {"face": "middle"},
        {"extra_margin": -1},
        {"extra_margin": 1001},
        {"bbox_shift": -1001},
        {"batch_size": 0},
        {"batch_size": 257},
        {"max_gap": -0.1},
        {"max_gap": 11},
        {"max_gap": float("nan")},
        {"min_faces": 1.1},
        {"min_faces": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(values):
    with pytest.raises(InputError) as caught:
        PrepareOptions(**values)
    assert caught.value.hint


def test_a_face_that_leaves_to_the_left_is_cut_without_a_jump():
    shape = face_points((0, 0), 60)
    moving = [shape + np.array([90 - 2 * number, 200]) for number in range(60)]
    faces = [FaceLandmarks(points, Box(0, 20, 60, 300)) for points in moving]
    options = PrepareOptions(min_faces=0)
    plan = make_plan(
        faces, [0.0] * 60, fps=Fraction(25), size=(640, 480), options=options, extra_margin=0, cutoff_hz=3.0
    )
    boxes = [face.box for face in plan.faces if face is not None]
    assert boxes[-1].x1 == 0
    tops = np.array([(box.y1, box.y2) for box in boxes])
    assert np.abs(np.diff(tops, axis=0)).max() <= 1
