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
    for mask in (mask_from_parsing(labels, box, crop, "neck"), mask_from_outline(points, box, crop)):
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
            masks[mode, label] = mask_from_parsing(labels, box, crop, mode).any()
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


def test_wrong_label_maps_and_modes_are_refused():
    box = Box(0, 0, 50, 50)
    with pytest.raises(InputError, match="512"):
        mask_from_parsing(np.zeros((256, 256), np.uint8), box, crop_box(box))
    with pytest.raises(InputError, match="chin"):
        mask_from_parsing(np.zeros((512, 512), np.uint8), box, crop_box(box), "chin")
