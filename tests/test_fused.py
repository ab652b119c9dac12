"""The image steps in one launch, beside the CPU's; without a GPU Triton's interpreter runs the kernel."""

import math
from contextlib import contextmanager, nullcontext

import cv2
import numpy as np
import pytest
import torch
from drawings import drawn
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from musetalk_cli.config import Sharpen
from musetalk_cli.engine.compositor import CpuPath, GpuPath
from musetalk_cli.engine.drawn import Drawn
from musetalk_cli.engine.fused import FusedPath, image_path
from musetalk_cli.engine.image_path import Target
from musetalk_cli.errors import InputError
from musetalk_cli.ops import reference
from musetalk_cli.ops.drawn import levels
from musetalk_cli.ops.triton_ops import FIELDS, PROGRAMS, TILE, programs
from musetalk_cli.types import Box

pytest.importorskip("triton", reason="no Triton here: pip install 'musetalk-cli[dev]'")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
UNTIMED = lambda _: nullcontext()  # noqa: E731 - a span of any name
SIZES = [(40, 60), (300, 200), (256, 256), (128, 128), (128, 50), (1, 7), (40, 60)]
"""Columns and rows of boxes: smaller, larger, equal, half, half of one side, narrow, and one twice."""


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch):
    """Each costs the interpreter milliseconds, and does several tiles."""
    monkeypatch.setattr("musetalk_cli.ops.triton_ops.MOST_PROGRAMS", 3)


def faces(count, seed=0):
    """Smooth colours with an edge, as a face has."""
    rough = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)
    large = np.stack([cv2.resize(one, (256, 256), interpolation=cv2.INTER_CUBIC) for one in rough])
    large[:, 120:, 90:] = 255 - large[:, 120:, 90:]
    return torch.from_numpy(large)


def target(face, width=31, height=27, seed=0, mask=None):
    """A part of any size, and where a face goes in it, which may reach over it or end inside."""
    random = np.random.default_rng(seed)
    body = random.integers(0, 256, (height, width, 3), np.uint8)
    if mask is None:
        mask = random.integers(0, 256, (height, width), np.uint8)
    return Target(body, np.broadcast_to(np.uint8(mask), (height, width)).copy(), face)


def centred(width, height, seed):
    left, top = (31 - width) // 2, (27 - height) // 2
    return target(Box(left, top, left + width, top + height), seed=seed)


def fused(targets, given, sharpen=None, broken=()):
    """Patches and marks of the fused path."""
    path = FusedPath(DEVICE, sharpen=sharpen)
    return path.compose(on_device(given, broken), path.put(targets), sharpen, UNTIMED)()


def on_device(given, broken=()):
    return Drawn(drawn(given, broken).to(DEVICE))


def expected(targets, given, sharpen=None):
    """Patches as OpenCV and numpy make them."""
    return CpuPath().compose(Drawn(drawn(given)), targets, sharpen, UNTIMED)()[:-1]


def test_a_batch_of_faces_of_different_sizes_is_the_references_to_the_level():
    targets = [centred(*size, seed) for seed, size in enumerate(SIZES)]
    given = faces(len(SIZES))
    *patches, marks = fused(targets, given)
    assert marks.tolist() == [1] * len(SIZES)
    for size, ours, theirs in zip(SIZES, patches, expected(targets, given), strict=True):
        assert ours.dtype == np.uint8
        assert np.array_equal(ours, theirs), size


SHARPENED = [Sharpen(), Sharpen(0.7, 0.4, 0.0), Sharpen(3.0, 1.7, 12.5)]


def check_sharpened(targets, given, sharpen, share):
    """Equal but where float32 rounds otherwise: by a level, or where the detail is at the threshold."""
    *patches, _ = fused(targets, given, sharpen)
    level = unsure = total = 0
    for one, face, ours, theirs in zip(
        targets, given.numpy(), patches, expected(targets, given, sharpen), strict=True
    ):
        resized = reference.gpu_resize(face, (one.face.height, one.face.width)).astype(np.float32)
        taps = 2 * round(4 * sharpen.sigma) + 1
        detail = np.abs(resized - cv2.GaussianBlur(resized, (taps, taps), sharpen.sigma))
        shown = np.full((*ours.shape[:2], 3), np.inf, np.float32)
        region = one.face.clamp(ours.shape[1], ours.shape[0])
        if not region.empty:
            shown[region.slices()] = detail[region.shift(-one.face.x1, -one.face.y1).slices()]
        differs = np.abs(ours.astype(int) - theirs)
        at_threshold = np.abs(shown - sharpen.threshold) < 1e-3
        assert differs[~at_threshold].max() <= 1
        level += np.count_nonzero(differs[~at_threshold])
        unsure += np.count_nonzero(at_threshold)
        total += ours.size
    assert level <= share * total
    assert unsure <= 1e-3 * total or sharpen.threshold == 0


@pytest.mark.parametrize(
    "sharpen",
    [SHARPENED[1], *(pytest.param(other, marks=pytest.mark.slow) for other in SHARPENED[::2])],
    ids=str,
)
def test_sharpened_it_is_the_references_but_for_a_level_of_one_value_in_ten_thousand(sharpen):
    targets = [centred(*size, seed) for seed, size in enumerate(SIZES)]
    check_sharpened(targets, faces(len(SIZES)), sharpen, 1e-4)


def test_an_amount_of_nothing_sharpens_nothing():
    targets, given = [centred(40, 60, 0)], faces(1)
    assert np.array_equal(fused(targets, given, Sharpen(0.0, 1.0, 5.0))[0], fused(targets, given)[0])


@pytest.mark.parametrize("sharpen", [None, Sharpen()], ids=str)
def test_a_mask_of_nothing_keeps_the_body_and_one_of_everything_takes_the_face(sharpen):
    box, given = Box(-4, -9, 40, 50), faces(1)
    nothing, everything = target(box, mask=0), target(box, mask=255)
    assert np.array_equal(fused([nothing], given, sharpen)[0], nothing.body)
    face = reference.gpu_resize(given[0].numpy(), (59, 44))
    if sharpen:
        face = reference.gpu_unsharp_mask(face, sharpen.amount, sharpen.sigma, sharpen.threshold)
    assert np.array_equal(fused([everything], given, sharpen)[0], face[9 : 9 + 27, 4 : 4 + 31])


@settings(max_examples=6, phases=[Phase.generate])  # a tile takes the interpreter long: nothing is shrunk
@given(seed=st.integers(0, 2**32 - 1), sharpen=st.sampled_from([None, Sharpen()]))
def test_any_boxes_and_masks_are_the_references(seed, sharpen):
    random, targets = np.random.default_rng(seed), []
    for number in range(3):
        (left, top), (width, height) = random.integers(-30, 30, 2), random.integers(1, 50, 2)
        box = Box(*map(int, (left, top, left + width, top + height)))
        mask = random.choice([None, 0, 1, 127, 254, 255])
        targets.append(target(box, *map(int, random.integers(1, 40, 2)), seed + number, mask))
    given = faces(len(targets), seed)
    if sharpen is not None:
        check_sharpened(targets, given, sharpen, 1e-3)
        return
    for ours, theirs in zip(fused(targets, given), expected(targets, given), strict=False):
        assert np.array_equal(ours, theirs)


def test_marks_come_down_after_the_patches():
    targets = [centred(20, 20, seed) for seed in range(3)]
    *patches, marks = fused(targets, faces(3), broken=[1])
    assert [patch.shape for patch in patches] == [(27, 31, 3)] * 3
    assert marks.tolist() == [1, 0, 1]


def test_faces_that_only_fill_a_batch_go_nowhere():
    """A graph has as many faces as it was captured with."""
    path, given = FusedPath(DEVICE), on_device(faces(4))
    targets = [centred(20, 20, seed) for seed in range(2)]
    placed = path.put(targets)
    table = torch.full((4, FIELDS), -1, dtype=torch.int64, device=DEVICE)
    shapes = path.describe(placed, table)
    path.out.fill_(7)
    path._compositor(table, given.pictures)  # noqa: SLF001 - as a graph launches it
    assert path.out[sum(map(math.prod, shapes)) :].eq(7).all()
    *patches, marks = path.download(shapes)()
    assert marks.tolist() == [1, 1]
    assert all(map(np.array_equal, patches, expected(targets, faces(4)[:2])))


def test_buffers_stay_where_they_are_until_a_batch_needs_more():
    path, given = FusedPath(DEVICE), on_device(faces(3)).pictures
    placed = path.put([centred(20, 20, seed) for seed in range(3)])
    at = []
    for count in (2, 1, 2, 3):
        path.compose(Drawn(given[:count]), placed[:count], None, UNTIMED)()
        at.append((path.table.data_ptr(), path.out.data_ptr()))
    assert at[0] == at[1] == at[2]
    assert path.table.shape[0] == 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_face_is_rounded_to_levels_where_the_decoder_left_it(dtype, layout):
    """Also beyond black and white, halfway between two levels, and where a batch lies in a larger one."""
    random = np.random.default_rng(0)
    values = random.uniform(-1.3, 1.3, (3, 3, 256, 256)).astype(np.float32)
    values[:, :, ::3] = (2 * random.integers(0, 256, values[:, :, ::3].shape) + 1) / 255 - 1
    given = torch.from_numpy(values).to(dtype).contiguous(memory_format=layout)
    size = 40
    box = Box(0, 0, 256, 256)
    targets = [target(box.shift(-100 * n, -60 * n), size, size, mask=255) for n in range(2)]
    path = FusedPath(DEVICE)
    *patches, marks = path.compose(Drawn(given[:2].to(DEVICE)), path.put(targets), None, UNTIMED)()
    assert marks.tolist() == [1, 1]
    exact = np.rint(np.clip(given.float().numpy() / 2 + np.float32(0.5), 0, 1) * np.float32(255))
    for number, patch in enumerate(patches):
        at = 60 * number, 100 * number
        shown = exact[number, ::-1, at[0] : at[0] + size, at[1] : at[1] + size].transpose(1, 2, 0)
        assert np.array_equal(patch, shown)
        assert np.array_equal(levels(given)[number].numpy(), exact[number, ::-1].transpose(1, 2, 0))


def test_what_lies_in_no_order_is_copied_first():
    given = faces(1)
    turned = Drawn(drawn(given).transpose(2, 3).contiguous().transpose(2, 3).to(DEVICE))
    one = centred(40, 60, 0)
    path = FusedPath(DEVICE)
    assert np.array_equal(
        path.compose(turned, path.put([one]), None, UNTIMED)()[0], expected([one], given)[0]
    )


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # of a level that is not shown
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_single_value_that_is_not_finite_is_found_wherever_it_is(value, layout):
    """In the first and the last place of a face, of which nothing is shown, and not in its neighbour's."""
    given = torch.zeros(4, 3, 256, 256, dtype=torch.float16)
    given[1, 2, 255, 255] = given[3, 0, 0, 0] = value
    path, far = FusedPath(DEVICE), target(Box(100, 100, 120, 120), 8, 8)
    given = given.contiguous(memory_format=layout).to(DEVICE)
    *patches, marks = path.compose(Drawn(given), path.put([far] * 4), None, UNTIMED)()
    assert marks.tolist() == [1, 0, 1, 0]
    assert all(np.array_equal(patch, far.body) for patch in patches)


def test_a_launch_has_a_few_programs_for_every_multiprocessor_whatever_the_batch(monkeypatch):
    monkeypatch.undo()
    assert [programs(faces) for faces in (1, 4, 8, 13, 16, 1000)] == [64, 64, 64, 39, 32, 1]
    assert all(132 < 3 * faces * programs(faces) <= 3 * PROGRAMS for faces in (1, 4, 9, 13, 16))


def test_each_program_does_its_share_of_a_large_patch():
    """Of more tiles than there are programs, with a rest."""
    one = target(Box(-20, -9, 150, 140), 3 * TILE + 5, 2 * TILE + 1)
    given = faces(1)
    assert np.array_equal(fused([one], given)[0], expected([one], given)[0])


def test_the_spans_are_one_launch_and_the_way_down():
    path, names = FusedPath(DEVICE), []

    @contextmanager
    def span(name):
        names.append(name)
        yield

    path.compose(on_device(faces(1)), path.put([centred(20, 20, 0)]), None, span)()
    assert names == ["compose", "download"]


def test_a_blur_wider_than_a_tile_is_refused():
    with pytest.raises(InputError, match="too wide"):
        FusedPath(DEVICE, sharpen=Sharpen(1.0, 4.0, 5.0))


def test_on_a_cpu_the_steps_are_tensor_operations(caplog):
    assert isinstance(image_path(torch.device("cpu"), 3, None), GpuPath)
    assert not caplog.records
