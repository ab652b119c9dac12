"""The box rule and the masks, against the published code's results."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musetalk_cli.avatar.pickles import read_boxes
from musetalk_cli.errors import InputError
from musetalk_cli.face.boxes import MIN_FACE, add_margin, crop_box, face_box
from musetalk_cli.face.masks import mask_from_outline, mask_from_parsing
from musetalk_cli.face.settings import MaskShape
from musetalk_cli.types import Box

DATA = Path(__file__).parent / "data"
CASES = json.loads((DATA / "bbox_rule.json").read_text())
SHARED = os.environ.get("MUSETALK_TEST_DATA")
SETS = [
    DATA / "golden",
    pytest.param(
        Path(SHARED or ".") / "golden" / "footage",
        marks=pytest.mark.skipif(not SHARED, reason="MUSETALK_TEST_DATA does not name the folder of footage"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_box_rule(case):
    height, width = case["frame"]
    detection = case["detection"] and Box(*case["detection"])
    box = face_box(
        np.array(case["landmarks"]), detection, frame=(width, height), bbox_shift=case["bbox_shift"]
    )
    assert box == (case["bbox"] and Box(*case["bbox"]).clamp(width, height))


def test_box_rule_refuses_other_shapes():
    with pytest.raises(ValueError, match="68"):
        face_box(np.zeros((5, 2)), Box(0, 0, 1, 1), frame=(10, 10))


def test_a_face_outside_the_frame_is_none():
    points = np.tile([[500.0, 500.0]], (68, 1)) + np.arange(68)[:, None]
    assert face_box(points, Box(500, 500, 560, 560), frame=(320, 240)) is None


def test_margin_stops_at_the_frame():
    assert add_margin(Box(0, 0, 10, 20), 10, 240).y2 == 30
    assert add_margin(Box(0, 0, 10, 235), 10, 240).y2 == 240


boxes = st.tuples(*[st.integers(-500, 2000)] * 2, *[st.integers(MIN_FACE, 1500)] * 2).map(
    lambda b: Box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(boxes)
def test_crop_is_a_square_around_the_face(box):
    crop = crop_box(box)
    assert crop.width == crop.height > 0
    assert crop.intersect(box) == box


@settings(max_examples=20, deadline=None)
@given(boxes.filter(lambda box: box.width < 400 and box.height < 400), st.integers(0, 2**32 - 1))
def test_masks_are_zero_above_the_blurred_middle(box, seed):
    crop = crop_box(box)
    labels = np.random.default_rng(seed).integers(0, 19, (512, 512)).astype(np.uint8)
    points = np.random.default_rng(seed).uniform((box.x1, box.y1), (box.x2, box.y2), (68, 2))
    reach = int(0.1 * crop.width // 2 * 2) // 2
    parsed = mask_from_parsing(labels, box, crop, MaskShape("neck"))
    for mask in (parsed, mask_from_outline(points, box, crop)):
        assert mask.shape == (crop.height, crop.width)
        assert mask.dtype == np.uint8
        assert not mask[: max(0, crop.height // 2 - reach)].any()


@pytest.mark.parametrize("folder", SETS)
def test_golden_masks(folder):
    coords, crops = (read_boxes(folder / "avatar" / name) for name in ("coords.pkl", "mask_coords.pkl"))
    for number in range(4):
        box, crop = Box(*map(int, coords[number])), Box(*map(int, crops[number]))
        assert crop_box(box) == crop
        labels = cv2.imread(str(folder / "parsing" / f"{number:08d}.png"), cv2.IMREAD_UNCHANGED)
        golden = cv2.imread(str(folder / "avatar" / "mask" / f"{number:08d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask_from_parsing(labels, box, crop), golden)


def test_modes_keep_their_labels():
    box = Box(100, 100, 200, 220)
    crop = crop_box(box)
    masks = {}
    for mode in ("raw", "neck"):
        for label in range(19):
            labels = np.full((512, 512), label, np.uint8)
            masks[mode, label] = mask_from_parsing(labels, box, crop, MaskShape(mode)).any()
    assert {label for (mode, label), kept in masks.items() if kept and mode == "raw"} == {1, 11, 12, 13}
    assert {label for (mode, label), kept in masks.items() if kept and mode == "neck"} == {1, 11, 12, 13, 14}


def test_outline_covers_the_chin_and_not_the_background():
    angle = np.linspace(0, np.pi, 17)
    points = np.tile([[150.0, 160.0]], (68, 1))
    points[:17] = np.stack([150 - 45 * np.cos(angle), 150 + 65 * np.sin(angle)], 1)
    points[17:27] = np.stack([np.linspace(110, 190, 10), np.full(10, 110.0)], 1)
    box = Box(105, 95, 195, 225)
    crop = crop_box(box)
    mask = mask_from_outline(points, box, crop)
    assert mask[200 - crop.y1, 150 - crop.x1] == 255
    assert mask[218 - crop.y1, 108 - crop.x1] < 64


SQUARE = Box(200, 200, 542, 542)
"""A face whose crop is 512 x 512, so that a label map is not resized: columns and rows 85..426 of it."""


def pattern(labels):
    """A label map of 32 x 32 blocks that takes the labels in turn."""
    blocks = np.resize(np.array(labels, np.uint8), (16, 16))
    return np.kron(blocks, np.ones((32, 32), np.uint8))


@pytest.mark.parametrize(("mode", "kept"), [("raw", {1, 11, 12, 13}), ("neck", {1, 11, 12, 13, 14})])
def test_raw_and_neck_are_the_labels_in_the_lower_half_of_the_box(mode, kept):
    crop = crop_box(SQUARE)
    assert crop == Box(115, 115, 627, 627)
    labels = pattern([*range(19), 14, 1])
    expected = np.zeros((512, 512), np.uint8)
    for row in range(256, 427):
        for column in range(85, 427):
            expected[row, column] = 255 * (int(labels[row, column]) in kept)
    mask = mask_from_parsing(labels, SQUARE, crop, MaskShape(mode, feather=0))
    np.testing.assert_array_equal(mask, expected)
    assert 0 < np.count_nonzero(mask) < mask.size


@pytest.mark.parametrize(("row", "column", "widths"), [(400, 256, True), (400, 100, False)])
def test_jaw_grows_a_pixel_of_skin_between_the_cheeks(row, column, widths):
    labels = np.zeros((512, 512), np.uint8)
    labels[row, column] = 1
    labels[300, 300] = 11
    mask = mask_from_parsing(labels, SQUARE, crop_box(SQUARE), MaskShape(feather=0))
    expected = np.zeros((512, 512), np.uint8)
    expected[300, 300] = 255
    for distance in range(-16, 7) if widths else ():
        half = min(10, 6 - distance)
        expected[row + distance, column - half : column + half + 1] = 255
    np.testing.assert_array_equal(mask, expected)


def test_jaw_leaves_the_nose_out():
    labels = np.ones((512, 512), np.uint8)
    labels[300:310, 250:260] = 10
    mask = mask_from_parsing(labels, SQUARE, crop_box(SQUARE), MaskShape(feather=0))
    assert not mask[300:310, 250:260].any()
    assert mask[311, 255] == 255


def test_jaw_narrows_what_the_cheek_width_leaves_to_the_cheeks():
    labels = np.zeros((512, 512), np.uint8)
    labels[300:420, 120:400] = 1
    crop = crop_box(SQUARE)
    wide = mask_from_parsing(labels, SQUARE, crop, MaskShape(cheek_width=(256, 256), feather=0))
    narrow = mask_from_parsing(labels, SQUARE, crop, MaskShape(cheek_width=(30, 60), feather=0))
    changed = np.flatnonzero((wide != narrow).any(axis=0))
    assert changed.min() >= 120 - 10
    assert not changed[(changed > 256 - 30) & (changed < 256 + 60)].size
    assert (narrow <= wide).all()
    assert changed.size


shares = st.floats(0, 1)
small = boxes.filter(lambda box: box.width < 300 and box.height < 300)


def random_inputs(box, seed):
    generator = np.random.default_rng(seed)
    labels = np.kron(generator.integers(0, 19, (32, 32)), np.ones((16, 16), np.uint8)).astype(np.uint8)
    return labels, generator.uniform((box.x1, box.y1), (box.x2, box.y2), (68, 2))


@settings(max_examples=30, deadline=None)
@given(small, st.integers(0, 2**32 - 1), shares, st.floats(0, 0.5), st.sampled_from(["jaw", "raw", "neck"]))
def test_boundary_and_feather_are_a_cut_and_a_blur(box, seed, boundary, feather, mode):
    crop = crop_box(box)
    labels, points = random_inputs(box, seed)
    whole = MaskShape(mode, upper_boundary=0, feather=0)
    shape = MaskShape(mode, upper_boundary=boundary, feather=feather)
    for make, face in ((mask_from_parsing, labels), (mask_from_outline, points)):
        expected = make(face, box, crop, whole).copy()
        expected[: int(np.floor(crop.height * boundary))] = 0
        side = 2 * int(np.floor(feather * crop.width / 2)) + 1
        kernel = cv2.getGaussianKernel(side, -1)
        blurred = cv2.sepFilter2D(expected.astype(np.float64), cv2.CV_64F, kernel, kernel)
        mask = make(face, box, crop, shape)
        assert mask.dtype == np.uint8
        if side == 1:
            np.testing.assert_array_equal(mask, expected)
        else:
            assert np.abs(mask - blurred).max() < 3  # OpenCV's kernel for bytes has 8 bits a number


@settings(max_examples=20, deadline=None)
@given(small, st.integers(0, 2**32 - 1), shares, shares)
def test_a_lower_boundary_keeps_no_more(box, seed, one, other):
    crop = crop_box(box)
    labels, points = random_inputs(box, seed)
    for make, face in ((mask_from_parsing, labels), (mask_from_outline, points)):
        higher, lower = (
            make(face, box, crop, MaskShape(upper_boundary=share)) for share in sorted((one, other))
        )
        assert (lower <= higher).all()
        assert not make(face, box, crop, MaskShape(upper_boundary=1)).any()


@given(small, st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_an_outline_without_feather_is_hard(box, seed):
    _, points = random_inputs(box, seed)
    mask = mask_from_outline(points, box, crop_box(box), MaskShape(feather=0))
    assert set(np.unique(mask)) <= {0, 255}


def test_the_shape_of_masks_is_that_of_the_published_code_unless_told():
    assert MaskShape() == MaskShape(None, (90, 90), 0.5, 0.1)
    labels = np.random.default_rng(0).integers(0, 19, (512, 512)).astype(np.uint8)
    box, crop = Box(40, 40, 160, 200), Box(0, 0, 200, 240)
    told = mask_from_parsing(labels, box, crop, MaskShape("jaw"))
    np.testing.assert_array_equal(mask_from_parsing(labels, box, crop), told)


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"mode": "chin"}, "--parsing-mode chin"),
        ({"cheek_width": (-1, 90)}, "--cheek-width -1 90"),
        ({"cheek_width": (90, 257)}, "--cheek-width 90 257"),
        ({"upper_boundary": -0.01}, "--upper-boundary -0.01"),
        ({"upper_boundary": 1.5}, "--upper-boundary 1.5"),
        ({"upper_boundary": float("nan")}, "--upper-boundary nan"),
        ({"feather": -0.1}, "--feather -0.1"),
        ({"feather": 0.51}, r"--feather 0\.51"),
        ({"feather": float("nan")}, "--feather nan"),
    ],
)
def test_shapes_out_of_range_name_their_option(values, option):
    with pytest.raises(InputError, match=option) as caught:
        MaskShape(**values)
    assert caught.value.hint


@pytest.mark.parametrize("values", [{"cheek_width": (0, 256)}, {"upper_boundary": 0, "feather": 0.5}])
def test_shapes_at_their_limits_are_accepted(values):
    crop = crop_box(SQUARE)
    assert mask_from_parsing(np.ones((512, 512), np.uint8), SQUARE, crop, MaskShape(**values)).any()


def test_wrong_label_maps_are_refused():
    box = Box(0, 0, 50, 50)
    with pytest.raises(InputError, match="512"):
        mask_from_parsing(np.zeros((256, 256), np.uint8), box, crop_box(box))
