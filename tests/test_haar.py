"""The cascade with the canonical face, on drawn faces whose true points are known."""

from functools import cache

import cv2
import numpy as np
import pytest

from musetalk_cli.errors import MuseTalkError
from musetalk_cli.face import haar
from musetalk_cli.face.boxes import face_box
from musetalk_cli.face.haar import CANONICAL_FACE, HaarFinder
from training import face as drawn
from training.face import Pose
from training.people import MAYA, OMAR
from training.portrait import draw

REST = (0, 0.45, 0, 0, 0)
HEIGHT, WIDTH = drawn.HEIGHT, drawn.WIDTH
EYES, NOSE, MOUTH, CHIN = slice(36, 48), slice(27, 36), slice(48, 68), slice(8, 9)
NEAR = ((EYES, 0.08), (NOSE, 0.08), (MOUTH, 0.15), (CHIN, 0.25))
"""How far the middle of a part may lie from the truth, in widths of the face. The drawn faces have a longer
chin than the photographed ones that the canonical face is made for."""


@cache
def portrait(person, pose):
    image = draw(person, pose, REST)
    image.setflags(write=False)
    return image


@pytest.fixture(scope="module")
def finder():
    return HaarFinder()


def truth(person, pose, *, scale=1.0, at=(0, 0)):
    return drawn.landmarks(person, pose, REST) * scale + at


def assert_near(face, expected):
    assert face.points.shape == (68, 2)
    np.testing.assert_array_equal(face.points, np.round(face.points, 2))
    width = np.ptp(expected[:17, 0])
    for part, limit in NEAR:
        away = np.linalg.norm(face.points[part].mean(axis=0) - expected[part].mean(axis=0))
        assert away < limit * width, (part, away / width)


POSES = (Pose(), Pose(x=-45, y=-20), Pose(x=50, y=30), Pose(scale=0.7), Pose(scale=1.2, y=20), Pose(yaw=0.25))


@pytest.mark.parametrize("person", [MAYA, OMAR], ids=["maya", "omar"])
@pytest.mark.parametrize("pose", POSES, ids=range(len(POSES)))
def test_drawn_faces_are_found(finder, person, pose):
    [[face]] = finder.find([portrait(person, pose)], [])
    assert_near(face, truth(person, pose))


def test_each_frame_of_a_batch_has_its_own_face(finder):
    poses = [Pose(x=6 * n, y=-4 * n, scale=1 - 0.02 * n) for n in range(4)]
    found = finder.find([portrait(MAYA, pose) for pose in poses], [])
    for [face], pose in zip(found, poses, strict=True):
        assert_near(face, truth(MAYA, pose))


def test_a_face_that_turns_is_followed_further_than_it_would_be_found(finder):
    """Where a face was a frame ago, fewer windows of the cascade need to agree."""
    poses = [Pose(yaw=yaw) for yaw in (0.0, 0.25, 0.5)]
    found = finder.find([portrait(OMAR, pose) for pose in poses], [])
    for [face], pose in zip(found, poses, strict=True):
        assert_near(face, truth(OMAR, pose))


@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_large_frames_are_searched_smaller_and_told_in_their_own_pixels(finder, scale):
    pose = Pose(x=20)
    image = cv2.resize(portrait(OMAR, pose), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    [[face]] = finder.find([image], [])
    assert_near(face, truth(OMAR, pose, scale=scale))


def side_by_side(left, right):
    return np.hstack([portrait(MAYA, left), portrait(OMAR, right)])


def test_two_people_of_one_picture_largest_first(finder):
    left, right = Pose(scale=0.8), Pose(scale=1.1)
    for faces in finder.find([side_by_side(left, right)] * 2, []):
        assert len(faces) == 2
        assert_near(faces[0], truth(OMAR, right, at=(WIDTH, 0)))
        assert_near(faces[1], truth(MAYA, left))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((480, 640, 3), np.uint8),
        np.full((600, 300, 3), 180, np.uint8),
        np.zeros((8, 9, 3), np.uint8),
        np.zeros((1, 2000, 3), np.uint8),
    ],
    ids=["black", "grey", "tiny", "line"],
)
def test_where_nothing_is_nothing_is_found(finder, image):
    assert finder.find([image, image], []) == [[], []]


def test_a_face_that_jumps_comes_in_or_leaves_is_found_in_that_frame(finder):
    """It is not where it was, so that the frame is searched as a whole."""
    blank = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    small = cv2.resize(portrait(MAYA, Pose()), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    corner = blank.copy()
    corner[HEIGHT // 2 :, WIDTH // 2 :] = small
    other = blank.copy()
    other[: HEIGHT // 2, : WIDTH // 2] = small
    found = finder.find([corner, other, blank, corner], [])
    assert [len(faces) for faces in found] == [1, 1, 0, 1]
    for faces, at in zip((found[0], found[1], found[3]), ((256, 320), (0, 0), (256, 320)), strict=True):
        assert_near(faces[0], truth(MAYA, Pose(), scale=0.5, at=at))


def test_one_of_two_who_leaves_leaves_one(finder):
    both, one = side_by_side(Pose(), Pose()), side_by_side(Pose(), Pose())
    one[:, WIDTH:] = 120
    assert [len(faces) for faces in finder.find([both, one, one], [])] == [2, 1, 1]


def test_one_of_two_who_jumps_is_found_in_that_frame(finder):
    both = side_by_side(Pose(), Pose())
    jumped = np.zeros((HEIGHT + 330, 2 * WIDTH, 3), np.uint8)
    before = jumped.copy()
    before[:HEIGHT], jumped[:HEIGHT] = both, both
    jumped[:HEIGHT, WIDTH:] = 120
    jumped[330:, WIDTH:] = portrait(OMAR, Pose())
    found = finder.find([before, jumped], [])
    for faces, y in zip(found, (0, 330), strict=True):
        one, other = sorted(faces, key=lambda face: face.points[0, 0])
        assert_near(one, truth(MAYA, Pose()))
        assert_near(other, truth(OMAR, Pose(), at=(WIDTH, y)))


def test_a_face_within_reach_of_two_is_told_once(monkeypatch):
    """Two faces half a side apart, of which one is gone in the next frame; a cascade that sees white dots."""

    class Dots:
        def __init__(self, path):
            pass

        def detectMultiScale(self, grey, *steps, **sizes):  # noqa: N802 - as OpenCV writes it
            return [(x, y, 100, 100) for y, x in np.argwhere(grey == 255)]

    monkeypatch.setattr("cv2.CascadeClassifier", Dots)
    frames = np.zeros((2, 240, 300, 3), np.uint8)
    frames[0, 50, [50, 110]] = frames[1, 50, 80] = 255
    found = HaarFinder().find(list(frames), [])
    assert [len(faces) for faces in found] == [2, 1]


def test_a_batch_does_not_depend_on_those_before_it(finder):
    first = [portrait(MAYA, Pose(x=x)) for x in (0, 8)]
    second = [portrait(OMAR, pose) for pose in POSES[:3]]
    before = finder.find(second, [])
    seen = finder.find(first, [])
    for other in (finder.find(second, seen[-1]), HaarFinder().find(second, [])):
        for [one], [two] in zip(before, other, strict=True):
            np.testing.assert_array_equal(one.points, two.points)
            assert one.detection == two.detection


def test_frames_are_only_read(finder):
    image = portrait(MAYA, Pose()).copy()
    finder.find([image], [])
    np.testing.assert_array_equal(image, portrait(MAYA, Pose()))


MIRRORED = [
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
]
"""Which point of the 68 a mirror puts in the place of each, as training on flipped pictures has it."""


def test_the_canonical_face_is_symmetric():
    assert sorted(MIRRORED) == list(range(68))
    np.testing.assert_allclose(CANONICAL_FACE[MIRRORED] * (-1, 1) + (1, 0), CANONICAL_FACE, atol=1e-12)


def test_the_canonical_face_is_in_the_order_of_the_drawn_one():
    """Scaled and moved onto the drawn face, every point lies near the one of its number."""
    expected = truth(MAYA, Pose())
    a, b = CANONICAL_FACE - CANONICAL_FACE.mean(axis=0), expected - expected.mean(axis=0)
    fitted = a * (a * b).sum() / (a * a).sum()
    width = np.ptp(b[:17, 0])
    assert np.linalg.norm(fitted - b, axis=1).max() < 0.2 * width
    assert np.linalg.norm(fitted - b, axis=1).mean() < 0.06 * width
    for part in (slice(0, 17), slice(17, 27), slice(36, 42), slice(42, 48), slice(48, 60)):
        nearest = np.linalg.norm(fitted[part, None] - b[None, part], axis=2).argmin(axis=1)
        away = np.abs(nearest - np.arange(len(nearest)))
        assert np.minimum(away, len(nearest) - away).max() <= 2, "lips and eyes are rings"


def test_the_box_of_the_canonical_face_holds_the_face(finder):
    assert CANONICAL_FACE[29, 1] < CANONICAL_FACE[30, 1] < CANONICAL_FACE[51, 1]
    [[face]] = finder.find([portrait(MAYA, Pose())], [])
    box = face_box(face.points, face.detection, frame=(WIDTH, HEIGHT))
    inside = truth(MAYA, Pose())
    for part in (EYES, NOSE, MOUTH):
        assert (inside[part] > (box.x1, box.y1)).all()
        assert (inside[part] < (box.x2, box.y2)).all()
    reach = 0.25 * np.ptp(inside[:17, 0])
    assert abs(box.y2 - inside[8, 1]) < reach
    assert face.points[8, 1] - box.y2 < 1


@pytest.mark.parametrize("lost", ["file", "class", "data"])
def test_an_opencv_without_the_cascade_says_what_to_do(monkeypatch, lost):
    if lost == "file":
        monkeypatch.setattr(haar, "CASCADE", "none.xml")
    elif lost == "class":
        monkeypatch.delattr(cv2, "CascadeClassifier")
    else:
        monkeypatch.delattr(cv2, "data")
    with pytest.raises(MuseTalkError, match="carries no") as caught:
        HaarFinder()
    assert "--landmarks" in caught.value.hint
