"""Faces into frames: both image paths beside OpenCV, PIL and the published code's own pictures."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from handmade import passed_through
from PIL import Image as Pictures

from musetalk_cli.bench.synthetic import synthetic_avatar
from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath, GpuPath
from musetalk_cli.engine.image_path import Target
from musetalk_cli.timeline import Timeline, mirrored
from musetalk_cli.types import Box

CPU = torch.device("cpu")
PATHS = [CpuPath(), GpuPath(CPU)]
both = pytest.mark.parametrize("path", PATHS, ids=["cpu", "gpu"])
SIZES = [(40, 60), (300, 200), (256, 256), (128, 128), (1, 7), (40, 60)]
"""Columns and rows of boxes: smaller, larger, equal, half, narrow, and one twice."""


def faces(count, seed=0):
    """Smooth colours with an edge, as a face has."""
    rough = np.random.default_rng(seed).integers(0, 256, (count, 16, 16, 3), np.uint8)
    large = [cv2.resize(one, (256, 256), interpolation=cv2.INTER_CUBIC) for one in rough]
    for one in large:
        one[120:, 90:] = 255 - one[120:, 90:]
    return torch.from_numpy(np.stack(large))


def as_arrays(pictures):
    return [np.asarray(picture) for picture in pictures]


def target(width, height, seed=0):
    """A part of 80 x 70 into which a face of any size goes, so that it may be cut on every side."""
    random = np.random.default_rng(seed)
    body = random.integers(0, 256, (70, 80, 3), np.uint8)
    mask = cv2.GaussianBlur(random.integers(0, 2, (70, 80), np.uint8) * 255, (0, 0), 2)
    mask[:5] = 0
    left, top = (80 - width) // 2, (70 - height) // 2
    return Target(body, mask, Box(left, top, left + width, top + height))


def on(path, one):
    """The same target where a path wants it."""
    if path.name == "cpu":
        return one
    return Target(torch.from_numpy(one.body), torch.from_numpy(one.mask), one.face)


@both
def test_faces_get_the_size_of_their_boxes_as_opencv_resizes(path):
    targets = [on(path, target(*size)) for size in SIZES]
    given = faces(len(SIZES))
    resized = as_arrays(path.resize(given, targets))
    for face, ours, size in zip(given.numpy(), resized, SIZES, strict=True):
        expected = cv2.resize(face, size, interpolation=cv2.INTER_LINEAR)
        assert ours.shape == expected.shape
        assert np.abs(ours.astype(int) - expected).max() <= 1


@both
def test_a_face_is_blended_as_pil_pastes(path):
    for seed, size in enumerate(SIZES):
        one = target(*size, seed)
        face = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        given = [face] if path.name == "cpu" else [torch.from_numpy(face)]
        (ours,) = as_arrays(path.blend(given, [on(path, one)]))
        above = Pictures.fromarray(one.body)
        above.paste(Pictures.fromarray(face), (one.face.x1, one.face.y1))
        expected = Pictures.fromarray(one.body)
        expected.paste(above, (0, 0), Pictures.fromarray(one.mask))
        assert np.abs(ours.astype(int) - np.asarray(expected)).max() <= 1, size
        assert np.array_equal(ours[one.mask == 0], one.body[one.mask == 0])


@both
def test_sharpening_is_the_unsharp_mask_of_opencv(path):
    settings = Sharpen(1.2, 1.5, 5.0)
    given = faces(2)
    ours = as_arrays(path.sharpen(as_arrays(given) if path.name == "cpu" else [*given], settings))[0]
    face = given[0].numpy().astype(np.float32)
    side = 2 * round(4 * settings.sigma) + 1
    detail = face - cv2.GaussianBlur(face, (side, side), settings.sigma, borderType=cv2.BORDER_REFLECT_101)
    expected = np.where(
        np.abs(detail) < settings.threshold, face, np.clip(face + settings.amount * detail, 0, 255)
    )
    unsure = np.abs(np.abs(detail) - settings.threshold) < 0.01
    assert (np.abs(detail) >= settings.threshold).mean() > 0.01
    assert np.abs(ours - expected)[~unsure].max() <= 1


@both
def test_every_frame_has_its_own_part_and_one_without_a_face_none(path):
    avatar = passed_through(synthetic_avatar(160, 120, 64, 4), {2})
    placed = path.place(avatar)
    assert [one is None for one in placed] == [False, False, True, False]
    for frame, patch, one in zip(avatar.frames, avatar.patches, placed, strict=True):
        if one is not None:
            assert np.array_equal(np.asarray(one.body), frame[patch.box.slices()])
            assert np.array_equal(np.asarray(one.mask), patch.mask)
            assert one.face.shift(patch.box.x1, patch.box.y1) == patch.face


def test_on_the_cpu_a_part_is_a_view_of_its_frame():
    avatar = synthetic_avatar(160, 120, 64, 2)
    for frame, one in zip(avatar.frames, CpuPath().place(avatar), strict=True):
        assert np.shares_memory(one.body, frame)


@both
def test_blending_leaves_the_avatar_as_it_is(path):
    avatar = synthetic_avatar(160, 120, 64, 3)
    before = [frame.copy() for frame in avatar.frames]
    targets = path.place(avatar)
    path.blend(path.resize(faces(3), targets), targets)
    assert all(map(np.array_equal, avatar.frames, before))
    bodies = as_arrays(one.body for one in targets)
    for body, frame, patch in zip(bodies, before, avatar.patches, strict=True):
        assert np.array_equal(body, frame[patch.box.slices()])


@both
def test_patches_and_marks_come_down_in_their_order(path):
    random = np.random.default_rng(0)
    parts = [random.integers(0, 256, shape, np.uint8) for shape in ((4, 6, 3), (1, 1, 3), (9, 2, 3))]
    given = parts if path.name == "cpu" else [torch.from_numpy(part) for part in parts]
    *patches, marks = path.download([*given, path.marks(torch.tensor([True, False, True]))])()
    assert all(isinstance(one, np.ndarray) and one.dtype == np.uint8 for one in (*patches, marks))
    assert all(map(np.array_equal, patches, parts))
    assert marks.tolist() == [1, 0, 1]


@both
def test_golden_faces_become_the_published_pictures(path, golden, golden_avatar):
    """Upstream's faces of the first batch, put into its avatar, are the frames that it wrote."""
    given = np.load(golden / "tensors.npz")["faces_bgr"]
    timeline, placed = Timeline(Fraction(25)), path.place(golden_avatar)
    numbers = [
        mirrored(timeline.source_frame(index, golden_avatar.meta.fps), golden_avatar.meta.frames)
        for index in range(len(given))
    ]
    targets = [placed[number] for number in numbers]
    patches = path.download(path.blend(path.resize(torch.from_numpy(given), targets), targets))()
    for index, (number, patch) in enumerate(zip(numbers, patches, strict=True)):
        frame = golden_avatar.frames[number].copy()
        frame[golden_avatar.patches[number].box.slices()] = patch
        expected = cv2.imread(str(golden / "frames" / f"{index:08d}.png"))
        assert np.abs(frame.astype(int) - expected).max() <= 1
