"""What makes a frame good or bad, on drawn faces, turned heads and label maps made by hand."""

import cv2
import numpy as np
import pytest

from musetalk_cli.face.haar import CANONICAL_FACE
from musetalk_cli.face.quality import (
    CLOSED,
    COVERED,
    PROFILE,
    is_mouth_covered,
    is_profile,
    is_unsure_of_mouth,
    opening,
    sharpness,
)
from musetalk_cli.types import Box
from training import face
from training.face import Mouth, Pose
from training.people import MAYA, OMAR, PEOPLE
from training.portrait import draw

REST, OPEN = (0, 0.45, 0, 0, 0), (1, 0.45, 0, 0, 0)
POSES = (Pose(), Pose(x=30, scale=0.6), Pose(roll=25), Pose(roll=-80), Pose(yaw=0.8, pitch=0.5))


@pytest.mark.parametrize("person", PEOPLE, ids=["maya", "omar"])
@pytest.mark.parametrize("pose", POSES, ids=range(len(POSES)))
def test_an_opening_is_that_of_the_drawn_mouth_in_every_pose(person, pose):
    assert opening(face.landmarks(person, pose, REST)) == pytest.approx(0, abs=1e-9)
    found = []
    for value in (0.1, 0.3, 0.6, 1):
        values = (value, *REST[1:])
        mouth = Mouth.of(person, values)
        gaps = (mouth.lower - mouth.upper)[[12, 24, 36], 1]
        width = mouth.upper[46, 0] - mouth.upper[2, 0]
        found.append(opening(face.landmarks(person, pose, values)))
        assert found[-1] == pytest.approx(gaps.mean() / width, rel=1e-6)
    assert found == sorted(found)
    assert found[1] > CLOSED, "what is open by a third is not closed"


def test_the_smallest_mouth_has_an_opening():
    assert np.isfinite(opening(np.zeros((68, 2))))
    assert opening(CANONICAL_FACE) < CLOSED


def turned(yaw, *, pitch=0, roll=0, mirrored=False):
    """The canonical face on a head: an ellipsoid with a nose, turned by degrees and seen from afar."""
    x, y = ((CANONICAL_FACE - (0.5, 0.55)) * 2).T
    z = np.sqrt(np.clip(1 - (x / 0.85) ** 2 - (y / 1.5) ** 2, 0, 1)) * 0.9
    z[27:36] += np.array((0.05, 0.1, 0.18, 0.28, 0.12, 0.16, 0.2, 0.16, 0.12))
    points = np.stack([-x if mirrored else x, y, z])
    a, b, c = np.deg2rad([yaw, pitch, roll])
    spin = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c)], [np.sin(c), np.cos(c)]])
    return (tilt @ (nod @ spin @ points)[:2]).T * 80 + 200


@pytest.mark.parametrize("roll", [0, 30, -90])
@pytest.mark.parametrize("side", [1, -1])
def test_a_head_that_is_turned_far_is_a_profile(side, roll):
    for pitch in (-20, 0, 20):
        for yaw in (0, 5, 10):
            assert not is_profile(turned(side * yaw, pitch=pitch, roll=roll)), yaw
        for yaw in (40, 55, 70):
            assert is_profile(turned(side * yaw, pitch=pitch, roll=roll)), yaw


def test_a_profile_is_where_the_nose_leaves_the_middle():
    points = np.zeros((68, 2))
    points[1], points[15] = (100, 50), (200, 50)
    for x in range(60, 240, 3):
        points[30] = (x, 90)
        share = min(x - 100, 200 - x) / 100
        assert is_profile(points) == (share < PROFILE)


def test_drawn_faces_are_no_profiles():
    for person in (MAYA, OMAR):
        for yaw in (-1, 0, 1):
            assert not is_profile(face.landmarks(person, Pose(yaw=yaw, roll=8), REST))


def test_a_network_that_loses_the_mouth_alone_is_unsure_of_it():
    sure = np.full(68, 0.8, np.float32)
    covered = sure.copy()
    covered[48:] = 0.3
    half = sure.copy()
    half[48:58] = 0.1
    assert not is_unsure_of_mouth(sure)
    assert not is_unsure_of_mouth(sure * 0.2), "it is as unsure of everything else"
    assert is_unsure_of_mouth(covered)
    assert not is_unsure_of_mouth(half)
    nose = sure.copy()
    nose[27:36] = 0
    assert not is_unsure_of_mouth(nose)


CROP = Box(-40, 100, 216, 356)
"""Half as large as a label map; leaves the frame on the left."""


def lips_and_labels(mouth=(1, 0.45, 0, 0, 0)):
    """Points of a drawn face, and the labels of its crop: skin, and lips where they are."""
    points = face.landmarks(MAYA, Pose(), mouth)
    points = (points - points.mean(axis=0)) * 0.7 + (90, 230)
    labels = np.full((512, 512), 1, np.uint8)
    outline = (points[48:60] - (CROP.x1, CROP.y1)) * 2
    cv2.fillPoly(labels, [np.rint(outline).astype(np.int32)], 12)
    return points, labels


@pytest.mark.parametrize("label", [11, 12, 13])
def test_a_mouth_whose_lips_are_labelled_is_not_covered(label):
    points, labels = lips_and_labels()
    labels[labels == 12] = label
    assert not is_mouth_covered(labels, points, CROP)


@pytest.mark.parametrize("label", [0, 1, 10, 14, 16])
def test_a_mouth_without_lips_in_the_labels_is_covered(label):
    points, labels = lips_and_labels()
    labels[labels == 12] = label
    assert is_mouth_covered(labels, points, CROP)


def test_a_mouth_is_covered_from_a_share_of_its_outline():
    points, labels = lips_and_labels()
    rows, columns = np.nonzero(labels == 12)
    order = np.argsort(columns)
    for share in (0.1, 0.3, 0.4, 0.9):
        some = labels.copy()
        gone = order[: round((1 - share) * len(order))]
        some[rows[gone], columns[gone]] = 1
        assert is_mouth_covered(some, points, CROP) == (share < COVERED)


def test_lips_elsewhere_do_not_count():
    points, labels = lips_and_labels()
    assert is_mouth_covered(np.roll(labels, 200, axis=0), points, CROP)
    away = points + np.array((1000, 0))
    assert not is_mouth_covered(np.full((512, 512), 12, np.uint8), away, CROP)


@pytest.mark.parametrize("person", PEOPLE, ids=["maya", "omar"])
def test_sharpness_falls_with_blur_and_with_enlarging(person):
    image = draw(person, Pose(), REST)[180:440, 126:386]
    image = cv2.resize(image, (256, 256), interpolation=cv2.INTER_AREA)
    blurred = [sharpness(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4, 8)]
    assert [sharpness(image), *blurred] == sorted([sharpness(image), *blurred], reverse=True)
    assert sharpness(image) > 4 * blurred[2]
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    assert sharpness(cv2.resize(small, (256, 256), interpolation=cv2.INTER_CUBIC)) < 0.6 * sharpness(image)


def test_sharpness_is_the_deviation_of_the_laplacian():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    grey = np.rint(image.astype(float) @ (0.114, 0.587, 0.299))
    padded = np.pad(grey, 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * grey
    assert sharpness(image) == pytest.approx(laplacian.std(), rel=1e-3)
    assert sharpness(np.full((256, 256, 3), 90, np.uint8)) == 0
