"""The renderer: what is asked for is what is drawn, and the landmarks lie on it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.face.boxes import face_box
from musetalk_cli.types import Box
from training import face, faces, motion, portrait, visemes
from training.face import Mouth, Pose
from training.people import MAYA, OMAR, PEOPLE

UNIT = st.floats(0, 1)
MOUTHS = st.tuples(UNIT, UNIT, UNIT, UNIT, UNIT)


def dark_inside(person, values):
    """Pixels of the mouth's inside, by its colour, around the mouth of a frame drawn at home."""
    x, y = face.mouth_centre(person, Pose()).astype(int)
    part = portrait.draw(person, Pose(), values)[y - 25 : y + 45, x - 45 : x + 45].astype(int)
    return int((np.abs(part - (34, 24, 76)).sum(-1) < 30).sum())


@pytest.mark.parametrize("person", PEOPLE, ids=lambda one: one.name)
def test_the_inside_shows_only_in_an_open_mouth_and_grows_with_it(person):
    shown = [dark_inside(person, (opening, 0.5, 0, 0, 0)) for opening in (0, 0.2, 0.4, 0.7, 1)]
    assert shown[0] == 0
    assert all(more > less for less, more in itertools.pairwise(shown))


@given(MOUTHS)
def test_lips_never_cross(values):
    mouth = Mouth.of(MAYA, values)
    assert (mouth.top[:, 1] <= mouth.upper[:, 1] + 1e-9).all()
    assert (mouth.upper[:, 1] <= mouth.lower[:, 1] + 1e-9).all()
    assert (mouth.lower[:, 1] <= mouth.bottom[:, 1] + 1e-9).all()


def test_width_widens_and_rounding_narrows():
    rest, wide, round_ = (
        Mouth.of(OMAR, (0.3, width, rounding, 0, 0)).half_width
        for width, rounding in ((0.5, 0), (1, 0), (0.5, 1))
    )
    assert wide > rest > round_


def test_teeth_and_tongue_show_in_their_colours():
    plain, teeth, tongue = (
        portrait.draw(MAYA, Pose(), (0.7, 0.5, 0, teeth, tongue)).astype(int)
        for teeth, tongue in ((0, 0), (1, 0), (0, 1))
    )
    x, y = face.mouth_centre(MAYA, Pose()).astype(int)
    part = (slice(y - 20, y + 40), slice(x - 45, x + 45))
    white = lambda image: int((image[part].min(-1) > 225).sum())  # noqa: E731
    pink = lambda image: int((np.abs(image[part] - (132, 126, 230)).sum(-1) < 20).sum())  # noqa: E731
    assert white(teeth) > white(plain) + 100
    assert pink(tongue) > pink(plain) + 20


def test_the_mouth_moves_nothing_but_the_lower_face():
    rest, open_ = (portrait.draw(MAYA, Pose(), values) for values in (visemes.REST, (1, 0.5, 0, 0.5, 0)))
    rows = np.flatnonzero((rest != open_).any((1, 2)))
    box = faces.rest_box(MAYA, motion.Moment(Pose()))
    assert rows.min() > (box.y1 + box.y2) / 2 - 0.06 * box.height, (
        "but for the cheeks, which follow the jaw a little"
    )
    assert rows.max() < box.y2


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(PEOPLE), MOUTHS)
def test_landmarks_of_any_moment_give_a_box_in_the_frame_with_the_mouth_in_it(seed, person, values):
    moment = motion.random_moment(np.random.default_rng(seed))
    points = face.landmarks(person, moment.pose, values)
    assert points.shape == (68, 2)
    box = face_box(points, Box(0, 0, face.WIDTH, face.HEIGHT), frame=(face.WIDTH, face.HEIGHT))
    assert box is not None
    x, y = faces.centre(person, moment)
    assert 60 < x < 196
    assert 140 < y < 210
    assert points[:17, 1].argmax() in (7, 8, 9), "the chin is the lowest point of the jaw"
    round_the_face = np.arctan2(points[:17, 1] - points[27, 1], points[:17, 0] - points[27, 0])
    assert (np.diff(np.unwrap(round_the_face)) < 0).all(), "the jaw runs from left to right under the chin"
    assert points[62, 1] <= points[66, 1] + 1e-6, "inner lips, upper above lower"


def test_landmarks_of_the_lips_lie_where_lips_are_drawn():
    values = (0.8, 0.5, 0, 0, 0)
    frame = portrait.draw(MAYA, Pose(yaw=0.2, roll=3), values).astype(int)
    points = face.landmarks(MAYA, Pose(yaw=0.2, roll=3), values)
    above, below = points[62], points[66]
    x, y = (0.6 * above + 0.4 * below).round().astype(int)
    assert np.abs(frame[y, x] - (34, 24, 76)).sum() < 40, "between the inner lips is the inside"
    x, y = ((points[66] + points[57]) / 2).round().astype(int)
    red = frame[y, x, 2] - frame[y, x, 1]
    assert red > 60, "between the lower lip's edges is lip"


def test_an_idle_loop_rests_at_both_ends_and_never_jumps():
    moments = motion.idle(100, seed=3)
    track = np.array([[m.pose.x, m.pose.y, m.pose.roll, 20 * m.pose.yaw, 14 * m.pose.pitch] for m in moments])
    steps = np.abs(np.diff(track, axis=0))
    assert steps.max() < 1.0, "pixels or degrees a frame"
    assert steps[[0, -1]].max() < 0.1
    assert sum(moment.blink > 0.9 for moment in moments) >= 1
    assert moments[0].blink == moments[-1].blink == 0


def test_the_same_seed_draws_the_same_faces():
    frames = np.random.default_rng(0).random((40, 5)).astype(np.float32)
    one, other = (faces.make(2, frames, seed=4, workers=0) for _ in range(2))
    assert (one.images == other.images).all()
    assert (one.values[:, 1:] == frames[one.heard]).all()
    assert (one.values[:, 0] == np.float32(visemes.REST)).all()
