"""The landmarks file, and what is said about a wrong one."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from musetalk_cli.errors import InputError
from musetalk_cli.face.landmarks import FaceLandmarks, landmarks_text, read_landmarks
from musetalk_cli.types import Box

POINTS = [[x, 2.5 * x] for x in range(68)]
GOOD = {"points": POINTS, "box": [0, 1.9, 67, 170]}


def write(tmp_path, value):
    path = tmp_path / "landmarks.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_entries(tmp_path):
    first, second, third, fourth = read_landmarks(
        write(tmp_path, [GOOD, None, {**GOOD, "box": None}, {"points": POINTS}])
    )
    assert first.points.tolist() == POINTS
    assert first.detection == Box(0, 1, 67, 170)
    assert second is None
    assert third.detection is None
    assert fourth.detection is None


def test_an_empty_list_has_no_entries(tmp_path):
    assert read_landmarks(write(tmp_path, [])) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "nests deeper"),
        ("\xff", "not JSON"),
        ({"points": POINTS}, "not a list"),
        ([GOOD, 5], "Entry 1 .* must have points and box"),
        ([GOOD, {"box": None}], "Entry 1 .* must have points and box"),
        ([{**GOOD, "score": 1}], "Entry 0 .* nothing else"),
        ([None, {**GOOD, "points": POINTS[:67]}], "Entry 1 .* 68 points of two numbers, not 67 x 2"),
        ([{**GOOD, "points": [*POINTS[:67], [1]]}], "Entry 0 .* 68 points"),
        ([{**GOOD, "points": [["1", "2"]] * 68}], "Entry 0 .* 68 points"),
        ([{**GOOD, "points": "points"}], "Entry 0 .* 68 points"),
        ([{**GOOD, "points": [[10**400, 1]] * 68}], "number 1000.* too large"),
        ([{**GOOD, "points": [[0, 0]] * 30 + [[0, float("nan")]] * 38}], "NaN is not a number of JSON"),
        ([{**GOOD, "points": [[0, 1e300]] * 68}], "Entry 0 .* point 0"),
        ([{**GOOD, "box": [1, 2, 3]}], "Entry 0 .* four finite numbers"),
        ([{**GOOD, "box": [1, 2, 3, float("inf")]}], "Infinity is not a number of JSON"),
        ([{**GOOD, "box": [5, 5, 5, 9]}], "Entry 0 .* empty box"),
    ],
)
def test_wrong_files(tmp_path, content, said):
    with pytest.raises(InputError, match=said) as caught:
        read_landmarks(write(tmp_path, content))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_landmarks(tmp_path / "none.json")


pixels = st.floats(-1e6, 1e6, allow_nan=False)
corners = st.integers(-5000, 5000)
boxes = st.builds(
    lambda x, y, width, height: Box(x, y, x + width, y + height),
    *(corners, corners, st.integers(1, 9000), st.integers(1, 9000)),
)
faces = st.builds(
    FaceLandmarks,
    st_np.arrays(np.float64, (68, 2), elements=pixels),
    st.one_of(st.none(), boxes),
    st.one_of(st.none(), st.just(np.ones(68, np.float32))),
)


@settings(max_examples=40, deadline=None)
@given(entries=st.lists(st.one_of(st.none(), faces), max_size=4))
def test_what_is_written_is_read_back_to_the_last_digit(tmp_path_factory, entries):
    path = tmp_path_factory.mktemp("landmarks") / "faces.json"
    path.write_text(landmarks_text(entries))
    read = read_landmarks(path)
    assert len(read) == len(entries)
    for one, other in zip(entries, read, strict=True):
        if one is None:
            assert other is None
            continue
        np.testing.assert_array_equal(one.points, other.points)
        assert other.points.dtype == np.float64
        assert one.detection == other.detection
        assert other.confidence is None, "the file says where points are, not how sure anything is"
    assert len(json.loads(path.read_text())) == len(entries)
    lines = path.read_text().splitlines()[1:-1]
    assert len(lines) == max(1, len(entries)), "one entry a line, to be found and corrected"
