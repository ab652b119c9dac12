"""DWPose on people that come, go and pass, with a network that sees discs of one colour as faces."""

import cv2
import numpy as np
import pytest
from face_graphs import face_points, write_dwpose

from musetalk_cli.face import people
from musetalk_cli.face.dwpose import FACE, KEYPOINTS, Dwpose
from musetalk_cli.face.haar import HaarFinder
from musetalk_cli.face.landmarks import FaceLandmarks
from musetalk_cli.face.people import DwposeFinder
from musetalk_cli.types import Box
from training.face import Pose
from training.people import MAYA, OMAR
from training.portrait import draw

GREEN = (40, 200, 30)
SIZE = (480, 360)


class Recorded:
    """The network, and which boxes of how many frames it was asked for."""

    def __init__(self, network):
        self.network = network
        self.asked = []

    def __call__(self, frames, boxes):
        self.asked.append(list(boxes))
        return self.network(frames, boxes)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return Dwpose(write_dwpose(tmp_path_factory.mktemp("people") / "discs.onnx", {}, face=GREEN), "cpu")


@pytest.fixture
def finder(network):
    recorded = Recorded(network)
    found = DwposeFinder(recorded)
    found.asked = recorded.asked
    return found


def discs(*places, size=SIZE, background=None):
    """A frame with a disc `(x, y, radius)` for each face."""
    image = np.full((size[1], size[0], 3), 128, np.uint8) if background is None else background.copy()
    for x, y, radius in places:
        cv2.circle(image, (x, y), radius, GREEN, -1)
    return image


def face(x, y, radius):
    points = face_points((x, y), radius)
    return FaceLandmarks(points, Box(*(int(v) for v in (*points.min(0), *points.max(0)))), None)


def assert_at(found, x, y, radius, near=2.0):
    """Within a bin of the network's answer for the whole frame."""
    expected = face_points((x, y), radius)
    assert np.abs(found.points - expected).max() < near
    low, high = expected.min(axis=0), expected.max(axis=0)
    assert np.abs(np.array(found.detection) - [*low, *high]).max() < near + 1
    assert found.confidence.shape == (68,)
    assert found.confidence.mean() > 0.9
    np.testing.assert_array_equal(found.points, np.round(found.points, 2))


WHOLE = Box(0, 0, *SIZE)


def test_nobody_is_known_so_the_whole_frame_is_looked_at(finder):
    found = finder.find([discs((150 + 20 * n, 120, 40)) for n in range(3)], [])
    for n, [one] in enumerate(found):
        assert_at(one, 150 + 20 * n, 120, 40, near=1.2)
    whole, near = finder.asked
    assert whole == [WHOLE] * 3
    assert all(box != WHOLE and box.clamp(*SIZE) == box for box in near), "then once more from near"


def test_who_is_followed_is_looked_for_in_the_surroundings(finder):
    found = finder.find([discs((150 + 4 * n, 120, 20)) for n in range(3)], [face(148, 120, 20)])
    for n, [one] in enumerate(found):
        assert_at(one, 150 + 4 * n, 120, 20, near=1.2)
    [[box, *others]] = finder.asked
    assert others == [box] * 2
    assert box != WHOLE
    assert box.clamp(*SIZE) == box
    # Twice the face's width on either side, its height above and five times that below, in the frame.
    width, height = np.ptp(face_points((148, 120), 20), axis=0)
    low, high = face_points((148, 120), 20).min(axis=0), face_points((148, 120), 20).max(axis=0)
    sides = (low[0] - 2 * width, low[1] - height, high[0] + 2 * width, min(SIZE[1], high[1] + 5 * height))
    assert np.abs(np.array(box) - sides).max() <= 1


def test_who_is_lost_in_the_middle_of_a_batch_is_found_by_the_whole_frame(finder):
    """Two frames on the other side, and one in which there is nobody."""
    there = [(100, 100, 15), (104, 100, 15), (400, 280, 20), (404, 280, 20), None]
    frames = [discs(*([place] if place else [])) for place in there]
    found = finder.find(frames, [face(98, 100, 15)])
    for faces, place in zip(found, there, strict=True):
        assert len(faces) == (place is not None)
        if place:
            assert_at(faces[0], *place)
    assert finder.asked[0] != [WHOLE] * 5
    assert finder.asked[1] == [WHOLE] * 3
    assert len(finder.asked[2]) == 2, "those who are found there, once more from near"
    assert len(finder.asked) == 3


def test_where_nobody_is_nobody_is_found(finder):
    assert finder.find([discs()] * 2, []) == [[], []]
    assert finder.asked == [[WHOLE] * 2], "the whole frame is not looked at twice"


SMALL = {person: cv2.resize(draw(person, Pose(), (0, 0.45, 0, 0, 0)), (256, 320)) for person in (MAYA, OMAR)}


def street(*people_there, discs_at=True):
    """A wide frame with drawn people, at columns given, for the cascade; discs on their chests for DWPose.

    They stand so far apart that no one's surroundings hold the disc of another.
    """
    image = np.full((320, 1300, 3), 128, np.uint8)
    for person, x in people_there:
        image[:, x : x + 256] = SMALL[person]
        if discs_at:
            cv2.circle(image, (x + 128, 270), 24, GREEN, -1)
    return image


def middles(faces):
    return sorted(round(float(one.points[:, 0].mean())) for one in faces)


def test_two_people_are_found_where_the_cascade_sees_two(finder):
    frame = street((MAYA, 20), (OMAR, 1000))
    found = finder.find([frame, frame], [])
    for faces in found:
        assert middles(faces) == pytest.approx([148, 1128], abs=3)
    [asked] = finder.asked
    assert len(asked) == 4
    assert Box(0, 0, 1300, 320) not in asked


def test_who_comes_in_or_back_is_found_while_another_is_followed(finder):
    frame = street((MAYA, 20), (OMAR, 1000))
    [faces] = finder.find([frame], [face(148, 270, 24)])
    assert middles(faces) == pytest.approx([148, 1128], abs=3)


def test_who_is_followed_and_seen_by_the_cascade_is_asked_for_once(finder, monkeypatch):
    seen = face(200, 120, 30)
    monkeypatch.setattr(HaarFinder, "find", lambda *arguments: [[face(204, 117, 33)]])
    [[one]] = finder.find([discs((202, 120, 30))], [seen])
    assert_at(one, 202, 120, 30)
    assert len(finder.asked[0]) == 1


def test_one_face_found_from_two_sides_is_told_once(finder):
    [faces] = finder.find([discs((200, 120, 30))], [face(190, 120, 30), face(230, 122, 30)])
    assert len(finder.asked[0]) == 2
    [one] = faces
    assert_at(one, 200, 120, 30)


def test_no_more_than_six_people_are_asked_for(finder, monkeypatch):
    crowd = [face(30 + 60 * n, 100, 10) for n in range(8)]
    monkeypatch.setattr(HaarFinder, "find", lambda *arguments: [crowd])
    finder.find([discs()], [])
    assert len(finder.asked[0]) == 6
    finder.asked.clear()
    finder.find([discs()], [face(30, 300, 10)])
    assert len(finder.asked[0]) == 6


@pytest.mark.parametrize(("shade", "there"), [(10, True), (22, True), (25, False)])
def test_a_face_the_network_is_not_sure_of_is_none(finder, shade, there):
    """The network's score falls with the distance from the colour: 0.3 is what counts as sure."""
    image = discs()
    colour = tuple(value + shade for value in GREEN[:2]) + GREEN[2:]
    cv2.circle(image, (200, 150), 40, colour, -1)
    [faces] = finder.find([image], [])
    assert len(faces) == there
    score = max(0, 1 - 2 * shade**2 / 40**2)
    assert (score > people.CONFIDENT) == there
    for one in faces:
        assert one.confidence.mean() == pytest.approx(score, abs=0.03)


def test_a_face_outside_of_the_frame_is_none():
    outside = face_points((-100, 100), 40)

    def found_at(points):
        def network(frames, boxes):
            person = np.zeros((len(frames), KEYPOINTS, 2))
            person[:, FACE] = points
            return person, np.ones((len(frames), KEYPOINTS), np.float32)

        return DwposeFinder(network).find([discs()], [])[0]

    assert found_at(outside) == []
    (cut,) = found_at(outside + np.array((90, 0)))
    assert cut.detection.clamp(*SIZE) == cut.detection
    assert cut.detection.x1 == 0


def test_where_a_batch_ends_changes_nothing(finder):
    before = [face(100, 120, 25)]
    frames = [discs((104 + 3 * n, 120, 25)) for n in range(4)]
    whole = finder.find(frames, before)
    parts = finder.find(frames[:1], before) + finder.find(frames[1:], before)
    again = finder.find(frames, before)
    for one, two, three in zip(whole, parts, again, strict=True):
        for faces in (two, three):
            np.testing.assert_array_equal(one[0].points, faces[0].points)
            np.testing.assert_array_equal(one[0].confidence, faces[0].confidence)


def test_without_a_cascade_one_person_is_found(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("cv2.data.haarcascades", str(tmp_path))
    finder = DwposeFinder(Dwpose(write_dwpose(tmp_path / "net.onnx", {}, face=(90, 255, 90)), "cpu"))
    assert "Only one person is looked for" in caplog.text
    frame = np.zeros((240, 320, 3), np.uint8)
    cv2.circle(frame, (150, 110), 40, (90, 255, 90), -1)
    assert [len(faces) for faces in finder.find([frame] * 2, [])] == [1, 1]
