import platform
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from musetalk_cli import ops
from musetalk_cli.errors import InputError
from musetalk_cli.ops import reference
from musetalk_cli.ops.layout import LAYOUTS, from_bhwc, tell_layout, to_bhwc

SIDES = st.integers(1, 70)
CHANNELS = st.sampled_from([1, 3, 4])
SEEDS = st.integers(0, 2**32 - 1)
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
# Half of the spacing of the format's numbers between 128 and 256, and float32's own errors.
ROUNDING = {torch.float16: 0.07, torch.bfloat16: 0.6, torch.float32: 1e-3, torch.float64: 1e-3}

properties = settings(max_examples=60, deadline=None)


def noise(seed, *shape):
    """Random levels; every other seed gives black and white only, the hardest edges there are."""
    levels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return levels if seed % 2 else (levels > 127).astype(np.uint8) * np.uint8(255)


def apart(left, right):
    """The largest difference of two images, in levels."""
    wide = [
        np.asarray(each.double() if isinstance(each, torch.Tensor) else each, np.float64)
        for each in (left, right)
    ]
    assert wide[0].shape == wide[1].shape
    return np.abs(wide[0] - wide[1]).max()


def cv2_resize(image, height, width, flag=cv2.INTER_LINEAR):
    return cv2.resize(image, (width, height), interpolation=flag).reshape(height, width, -1)


def pil_blend(body, face, bbox, mask, crop_box):
    """The paste as MuseTalk's authors wrote it, with PIL; `[H, W, 3]` uint8."""
    if face.shape[:2] != (bbox[3] - bbox[1], bbox[2] - bbox[0]):
        face = cv2_resize(face, bbox[3] - bbox[1], bbox[2] - bbox[0])
    frame = Image.fromarray(body)
    crop = frame.crop(crop_box)
    crop.paste(Image.fromarray(face), (bbox[0] - crop_box[0], bbox[1] - crop_box[1]))
    frame.paste(crop, crop_box[:2], Image.fromarray(mask))
    return np.asarray(frame)


@st.composite
def boxes(draw, reach=40):
    x, y = draw(st.integers(-reach, reach)), draw(st.integers(-reach, reach))
    return x, y, x + draw(st.integers(1, reach)), y + draw(st.integers(1, reach))


# Resize


@properties
@given(SIDES, SIDES, SIDES, SIDES, CHANNELS, SEEDS)
def test_resize_of_uint8_equals_opencv(rows, cols, height, width, channels, seed):
    image = noise(seed, rows, cols, channels)
    expected = cv2_resize(image, height, width)
    # Equal on x86; OpenCV's builds for other processors may round otherwise.
    assert apart(ops.gpu_resize(torch.from_numpy(image), (height, width)), expected) <= 1
    assert apart(reference.gpu_resize(image, (height, width)), expected) == 0


@pytest.mark.parametrize(
    "size",
    [(92, 138), (117, 160), (300, 400), (128, 128), (512, 512), (256, 128), (1, 1), (256, 257), (1, 300)],
)
def test_resize_of_a_face_equals_opencv(size):
    face = noise(7, 256, 256, 3)
    assert apart(ops.gpu_resize(torch.from_numpy(face), size), cv2_resize(face, *size)) <= 1


@properties
@given(SIDES, SIDES, CHANNELS, SEEDS)
def test_an_exact_halving_equals_opencv(height, width, channels, seed):
    image = noise(seed, 2 * height, 2 * width, channels)
    halved = ops.gpu_resize(torch.from_numpy(image), (height, width))
    assert apart(halved, cv2_resize(image, height, width)) <= 1


def test_an_exact_halving_is_the_rounded_mean_of_four_pixels_whatever_they_are():
    """OpenCV has a way of its own for it; the fixed-point weights of a half give the same, for all sums."""
    above, below = np.meshgrid(np.arange(511), np.arange(511), indexing="ij")
    image = np.empty((1022, 1022), np.uint8)
    for row, total in ((0, above), (1, below)):
        image[row::2, ::2] = np.minimum(total, 255)
        image[row::2, 1::2] = total - np.minimum(total, 255)
    halved = ops.gpu_resize(torch.from_numpy(image)[..., None], (511, 511))[..., 0].numpy()
    assert np.array_equal(halved, (above + below + 2) >> 2)
    # OpenCV's builds for other processors may round otherwise
    levels = 0 if platform.machine() in {"x86_64", "AMD64"} else 1
    assert apart(halved[..., None], cv2_resize(image, 511, 511)) <= levels


@properties
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(FLOATS), SEEDS)
def test_resize_of_floats_equals_opencv(rows, cols, height, width, dtype, seed):
    image = torch.from_numpy(noise(seed, rows, cols, 3) * 0.7).to(dtype)
    resized = ops.gpu_resize(image, (height, width))
    assert resized.dtype == dtype
    assert apart(resized, cv2_resize(image.float().numpy(), height, width)) <= ROUNDING[dtype]


@properties
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([torch.uint8, torch.float32]), SEEDS)
def test_nearest_equals_opencv(rows, cols, height, width, dtype, seed):
    image = torch.from_numpy(noise(seed, rows, cols, 3)).to(dtype)
    resized = ops.gpu_resize(image, (height, width), mode="nearest")
    assert apart(resized, cv2_resize(image.numpy(), height, width, cv2.INTER_NEAREST)) == 0
    assert apart(resized, reference.gpu_resize(image.numpy(), (height, width), "nearest")) == 0


# Blur and unsharp


@properties
@given(SIDES, SIDES, CHANNELS, st.floats(0.05, 25), SEEDS)
def test_blur_of_uint8_equals_opencv(rows, cols, channels, sigma, seed):
    image = noise(seed, rows, cols, channels)
    expected = cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
    assert apart(ops.gpu_gaussian_blur(torch.from_numpy(image), sigma), expected) <= 1
    assert apart(reference.gpu_gaussian_blur(image, sigma), expected) == 0


@properties
@given(SIDES, SIDES, st.floats(0.05, 25), st.sampled_from(FLOATS), SEEDS)
def test_blur_of_floats_equals_opencv(rows, cols, sigma, dtype, seed):
    image = torch.from_numpy(noise(seed, rows, cols, 3) * 0.7).to(dtype)
    expected = cv2.GaussianBlur(image.float().numpy(), (0, 0), sigma).reshape(image.shape)
    blurred = ops.gpu_gaussian_blur(image, sigma)
    assert blurred.dtype == dtype
    assert apart(blurred, expected) <= ROUNDING[dtype]


def test_blur_keeps_a_flat_image():
    flat = torch.full((5, 1, 3), 201, dtype=torch.uint8)
    assert torch.equal(ops.gpu_gaussian_blur(flat, 9.0), flat)


@properties
@given(SIDES, SIDES, st.floats(0, 4), st.floats(0.1, 6), st.floats(0, 60), st.booleans(), SEEDS)
def test_unsharp_equals_its_formula(rows, cols, amount, sigma, threshold, whole, seed):
    image = noise(seed, rows, cols, 3) if whole else np.float32(noise(seed, rows, cols, 3) * 0.7)
    x = image.astype(np.float64)
    blurred = cv2.GaussianBlur(x, (0, 0), sigma).reshape(x.shape)
    sharp = np.clip((1 + amount) * x - amount * blurred, 0, 255)
    clear = np.abs(np.abs(x - blurred) - threshold) > 1e-3
    expected = np.where(np.abs(x - blurred) < threshold, x, sharp)[clear]
    near = 0.502 if whole else 2e-3
    for result in (
        ops.gpu_unsharp_mask(torch.from_numpy(image), amount, sigma, threshold).numpy(),
        reference.gpu_unsharp_mask(image, amount, sigma, threshold),
    ):
        assert result.dtype == image.dtype
        assert np.abs(result[clear] - expected).max(initial=0) <= near


def test_unsharp_is_clipped_and_keeps_what_is_below_the_threshold():
    image = torch.zeros(9, 9, 1, dtype=torch.float32)
    image[4, 4] = 250.0
    image[0, 0] = 2.0
    sharp = ops.gpu_unsharp_mask(image, amount=3.0, sigma=1.0, threshold=5.0)
    assert sharp[4, 4] == 255.0
    assert sharp[4, 5] == 0.0
    assert sharp[0, 0] == 2.0


# Blend


@properties
@given(st.integers(1, 40), st.integers(1, 40), boxes(), boxes(), st.booleans(), SEEDS)
def test_blend_of_uint8_equals_pil(height, width, bbox, crop_box, resized, seed):
    body, mask = (
        noise(seed, height, width, 3),
        noise(seed + 3, crop_box[3] - crop_box[1], crop_box[2] - crop_box[0]),
    )
    face = noise(seed + 1, 13, 9, 3) if resized else noise(seed + 1, bbox[3] - bbox[1], bbox[2] - bbox[0], 3)
    expected = pil_blend(body, face, bbox, mask, crop_box)
    blended = reference.gpu_image_blending(body, face, bbox, mask, crop_box)
    assert apart(blended, expected) == 0
    on_tensors = ops.gpu_image_blending(
        *map(torch.from_numpy, (body, face)), bbox, torch.from_numpy(mask), crop_box
    )
    assert apart(on_tensors, expected) <= (1 if resized else 0)


def test_blend_rounds_every_pair_of_levels_as_pil_does():
    a, b = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    a, b = np.ascontiguousarray(a[..., None]), np.ascontiguousarray(b[..., None])
    box = (0, 0, 256, 256)
    for level in range(256):
        mask = np.full((256, 256), level, np.uint8)
        blended = ops.gpu_image_blending(
            torch.from_numpy(b), torch.from_numpy(a), box, torch.from_numpy(mask), box
        )
        t = a.astype(int) * level + b.astype(int) * (255 - level) + 128
        assert apart(blended, ((t >> 8) + t) >> 8) == 0


@properties
@given(boxes(), boxes(), st.sampled_from(FLOATS), st.sampled_from([torch.uint8, torch.float32]), SEEDS)
def test_blend_of_floats_is_linear(bbox, crop_box, dtype, mask_dtype, seed):
    body = torch.from_numpy(noise(seed, 30, 33, 3)).to(dtype)
    face = torch.from_numpy(noise(seed + 1, bbox[3] - bbox[1], bbox[2] - bbox[0], 3)).to(dtype)
    mask = torch.from_numpy(noise(seed + 2, crop_box[3] - crop_box[1], crop_box[2] - crop_box[0])).to(
        mask_dtype
    )
    blended = ops.gpu_image_blending(body, face, bbox, mask, crop_box)
    assert blended.dtype == dtype
    expected = body.double().numpy().copy()
    for y in range(max(0, bbox[1], crop_box[1]), min(30, bbox[3], crop_box[3])):
        for x in range(max(0, bbox[0], crop_box[0]), min(33, bbox[2], crop_box[2])):
            share = float(mask[y - crop_box[1], x - crop_box[0]]) / 255
            above = face[y - bbox[1], x - bbox[0]].double().numpy()
            expected[y, x] += (above - expected[y, x]) * share
    assert apart(blended, expected) <= ROUNDING[dtype]
    if dtype != torch.bfloat16:
        as_arrays = (body.numpy(), face.numpy(), bbox, mask.numpy(), crop_box)
        assert apart(blended, reference.gpu_image_blending(*as_arrays)) <= 2 * ROUNDING[dtype]


def test_a_float_mask_counts_in_whole_levels_for_uint8():
    body, face = torch.zeros(4, 4, 3, dtype=torch.uint8), torch.full((4, 4, 3), 255, dtype=torch.uint8)
    mask = torch.full((4, 4), 99.6)
    box = (0, 0, 4, 4)
    assert (ops.gpu_image_blending(body, face, box, mask, box) == 100).all()
    assert (reference.gpu_image_blending(body.numpy(), face.numpy(), box, mask.numpy(), box) == 100).all()


@pytest.mark.parametrize("layout", ["BHWC", "BCHW"])
@pytest.mark.parametrize("masks", ["one", "batch", "batch1", "planes", "list"])
@pytest.mark.parametrize("one_box", [True, False])
def test_a_batch_blends_as_its_images_do(layout, masks, one_box):
    bodies, faces, levels = noise(1, 3, 20, 24, 3), noise(3, 3, 8, 7, 3), noise(5, 3, 12, 11)
    bboxes = [(2, 3, 9, 11), (-3, 5, 4, 13), (20, 15, 27, 23)]
    crops = [(0, 0, 11, 12), (-4, 3, 7, 15), (17, 12, 28, 24)]
    if one_box:
        bboxes, crops = bboxes[1:2] * 3, crops[1:2] * 3
    if masks == "one":
        levels[:] = levels[0]
    expected = np.stack([pil_blend(*each) for each in zip(bodies, faces, bboxes, levels, crops, strict=True)])
    mask = {
        "one": levels[0],
        "batch": levels,
        "batch1": levels[..., None],
        "planes": levels[:, None],
        "list": list(levels),
    }[masks]
    told = LAYOUTS[layout]
    body, face = from_bhwc(bodies, told), from_bhwc(faces, told)
    where = (bboxes[0], crops[0]) if one_box else (bboxes, crops)
    blended = reference.gpu_image_blending(body, face, where[0], mask, where[1])
    assert apart(to_bhwc(blended, told), expected) == 0
    tensor_mask = [torch.from_numpy(m) for m in mask] if masks == "list" else torch.from_numpy(mask)
    on_tensors = ops.gpu_image_blending(
        torch.from_numpy(body), torch.from_numpy(face), where[0], tensor_mask, where[1]
    )
    assert apart(to_bhwc(on_tensors, told), expected) == 0


def test_one_face_serves_a_batch_and_masks_may_differ_in_size():
    bodies, face = torch.from_numpy(noise(1, 2, 20, 20, 3)), torch.from_numpy(noise(3, 1, 9, 9, 3))
    bboxes, crops = [(0, 0, 9, 9), (4, 4, 13, 13)], [(0, 0, 10, 10), (2, 2, 16, 15)]
    masks = [torch.from_numpy(noise(4, 10, 10)), torch.from_numpy(noise(6, 13, 14, 1))]
    blended = ops.gpu_image_blending(bodies, face, bboxes, masks, crops)
    for i in range(2):
        alone = ops.gpu_image_blending(bodies[i], face[0], bboxes[i], masks[i], crops[i])
        assert torch.equal(blended[i], alone)


# What holds for all of them

ALL = {
    "resize": lambda module, x, **layout: module.gpu_resize(x, (9, 14), **layout),
    "resize to the same": lambda module, x, **layout: module.gpu_resize(x, (11, 13), **layout),
    "nearest": lambda module, x, **layout: module.gpu_resize(x, (9, 14), mode="nearest", **layout),
    "blur": lambda module, x, **layout: module.gpu_gaussian_blur(x, 1.3, **layout),
    "blur by nothing": lambda module, x, **layout: module.gpu_gaussian_blur(x, 1e-6, **layout),
    "unsharp": lambda module, x, **layout: module.gpu_unsharp_mask(x, **layout),
    "unsharp by nothing": lambda module, x, **layout: module.gpu_unsharp_mask(x, amount=0, **layout),
    "blend": lambda module, x, **layout: module.gpu_image_blending(
        x, x, (2, 1, 15, 12), _mask_like(x), (1, 1, 11, 9), **layout
    ),
    "blend outside": lambda module, x, **layout: module.gpu_image_blending(
        x, x, (2, 1, 15, 12), _mask_like(x), (50, 60, 60, 68), **layout
    ),
}


def _mask_like(image):
    mask = noise(9, 8, 10)
    return torch.from_numpy(mask) if isinstance(image, torch.Tensor) else mask


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ALL)
def test_layout_and_dtype_stay_and_the_input_is_not_changed(name, layout, dtype):
    told = LAYOUTS[layout]
    count = 2 if told.batched else 1
    plain = torch.from_numpy(noise(11, count, 11, 13, 3)).to(dtype)
    image = from_bhwc(plain, told)
    before = image.clone()
    result = ALL[name](ops, image, layout=layout)
    as_array = ALL[name](reference, image.numpy(), layout=layout)
    assert torch.equal(image, before)
    assert result.dtype == dtype
    assert result.untyped_storage().data_ptr() != image.untyped_storage().data_ptr()
    assert not np.shares_memory(as_array, image.numpy())
    assert as_array.dtype == image.numpy().dtype
    assert apart(result, as_array) <= (1 if dtype == torch.uint8 else 2 * ROUNDING[dtype])
    alone = torch.stack([ALL[name](ops, one) for one in plain])
    assert torch.equal(to_bhwc(result, told), alone)
    if layout != "CHW":
        assert torch.equal(ALL[name](ops, image), result)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_round_trip(layout):
    told = LAYOUTS[layout]
    shape = [{"B": 2, "H": 5, "W": 6, "C": 3}[each] for each in layout]
    image = torch.arange(np.prod(shape)).view(shape)
    assert to_bhwc(image, told).shape == (2 if told.batched else 1, 5, 6, 3)
    assert torch.equal(from_bhwc(to_bhwc(image, told), told), image)
    assert tell_layout(shape, layout) == told


def test_importing_the_reference_needs_no_torch():
    code = "import sys, musetalk_cli.ops.reference; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute"):
        ops.gpu_nothing  # noqa: B018 - the lookup is the test


# Errors


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize(
    ("shape", "options", "message", "hint"),
    [
        ((3, 3, 7, 3), {}, r"\[3, 3, 7, 3\] cannot be told", "BHWC"),
        ((2, 7, 8, 5), {}, r"\[2, 7, 8, 5\] cannot be told", "1, 3 or 4"),
        ((3, 7, 8), {}, r"\[3, 7, 8\] cannot be told", "CHW"),
        ((7, 8), {}, r"\[7, 8\] cannot be told", r"\[H, W, C\]"),
        ((1, 1, 7, 8, 3), {}, "cannot be told", r"\[H, W, C\]"),
        ((0, 8, 3), {}, r"\[0, 8, 3\] is empty", "at least 1"),
        ((0, 8, 8, 3), {}, "is empty", "at least 1"),
        ((7, 8, 3), {"layout": "HCW"}, "no layout 'HCW'", "BCHW"),
        ((7, 8, 3), {"layout": "BHWC"}, "not in layout BHWC", "4 dimensions"),
        ((2, 7, 8, 3), {"layout": "BCHW"}, "not in layout BCHW", "1, 3 or 4"),
    ],
)
def test_a_shape_that_is_no_image_is_refused(module, shape, options, message, hint):
    image = np.zeros(shape, np.uint8)
    image = torch.from_numpy(image) if module is ops else image
    with pytest.raises(InputError, match=message) as caught:
        module.gpu_gaussian_blur(image, 1.0, **options)
    assert caught.value.hint is not None
    assert re.search(hint, caught.value.hint)


BOX = (0, 0, 4, 4)


@pytest.mark.parametrize("module", [ops, reference])
@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("empty", lambda m, x, _: m.gpu_resize(x, (0, 5))),
        ("empty", lambda m, x, _: m.gpu_resize(x, (5, -1))),
        ("two whole", lambda m, x, _: m.gpu_resize(x, (5, 5, 5))),
        ("two whole", lambda m, x, _: m.gpu_resize(x, (5, 2.5))),
        ("two whole", lambda m, x, _: m.gpu_resize(x, 5)),
        ("mode 'cubic'", lambda m, x, _: m.gpu_resize(x, (5, 5), mode="cubic")),
        ("sigma 0", lambda m, x, _: m.gpu_gaussian_blur(x, 0)),
        ("sigma -1", lambda m, x, _: m.gpu_gaussian_blur(x, -1.0)),
        ("sigma nan", lambda m, x, _: m.gpu_gaussian_blur(x, float("nan"))),
        ("sigma inf", lambda m, x, _: m.gpu_unsharp_mask(x, sigma=float("inf"))),
        ("amount -1", lambda m, x, _: m.gpu_unsharp_mask(x, amount=-1)),
        ("amount nan", lambda m, x, _: m.gpu_unsharp_mask(x, amount=float("nan"))),
        ("threshold nan", lambda m, x, _: m.gpu_unsharp_mask(x, threshold=float("nan"))),
        ("int32", lambda m, _, to: m.gpu_resize(to(np.zeros((4, 4, 3), np.int32)), (5, 5))),
        ("list", lambda m, _x, _: m.gpu_resize([1], (5, 5))),
        (
            "bbox .* is empty",
            lambda m, x, to: m.gpu_image_blending(x, x, (2, 2, 2, 5), to(noise(1, 4, 4)), BOX),
        ),
        (
            "crop_box .* is empty",
            lambda m, x, to: m.gpu_image_blending(x, x, BOX, to(noise(1, 4, 4)), (3, 3, 1, 5)),
        ),
        ("not a box", lambda m, x, to: m.gpu_image_blending(x, x, (0, 0, 4), to(noise(1, 4, 4)), BOX)),
        ("not a box", lambda m, x, to: m.gpu_image_blending(x, x, (0, 0, 4, 4.5), to(noise(1, 4, 4)), BOX)),
        ("2 boxes in bbox", lambda m, x, to: m.gpu_image_blending(x, x, [BOX] * 2, to(noise(1, 4, 4)), BOX)),
        (r"\[5, 4\].* 4 x 4", lambda m, x, to: m.gpu_image_blending(x, x, BOX, to(noise(1, 5, 4)), BOX)),
        ("2 masks", lambda m, x, to: m.gpu_image_blending(x, x, BOX, [to(noise(1, 4, 4))] * 2, BOX)),
        (
            "2 images in the mask",
            lambda m, x, to: m.gpu_image_blending(x, x, BOX, to(noise(1, 2, 4, 4)), BOX),
        ),
        ("int64", lambda m, x, to: m.gpu_image_blending(x, x, BOX, to(np.zeros((4, 4), np.int64)), BOX)),
        (
            "1 channels and the body 3",
            lambda m, x, to: m.gpu_image_blending(x, x[..., :1], BOX, to(noise(1, 4, 4)), BOX),
        ),
        (
            "face is .*float32",
            lambda m, x, to: m.gpu_image_blending(x, x * to(np.ones(1, np.float32)), BOX, x, BOX),
        ),
        (
            "2 images in the face",
            lambda m, _, to: m.gpu_image_blending(
                to(noise(1, 3, 8, 8, 3)),
                to(noise(1, 2, 8, 8, 3)),
                BOX,
                to(noise(1, 4, 4)),
                BOX,
                layout="BHWC",
            ),
        ),
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(module, message, call):
    to = torch.from_numpy if module is ops else np.asarray
    with pytest.raises(InputError, match=message):
        call(module, to(noise(1, 8, 8, 3)), to)


def test_tensors_on_two_devices_are_refused():
    body = torch.zeros(8, 8, 3, dtype=torch.uint8)
    with pytest.raises(InputError, match="on meta"):
        ops.gpu_image_blending(body, body.to("meta"), BOX, torch.zeros(4, 4), BOX)
