import numpy as np
import pytest
import torch

from musetalk_cli import ops

pytestmark = pytest.mark.gpu

SIZES = [(1, 1), (1, 7), (9, 1), (31, 17), (92, 138), (117, 160), (128, 128), (300, 400), (512, 512)]
DTYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32]
# Within one level; bfloat16 itself has steps of one level above 128.
LEVEL = {torch.uint8: 1.0, torch.float16: 0.25, torch.bfloat16: 1.0, torch.float32: 0.01}
TAKING_IMAGES = {
    "blur": lambda x, **layout: ops.gpu_gaussian_blur(x, 1.0, **layout),
    "wide blur": lambda x, **layout: ops.gpu_gaussian_blur(x, 7.5, **layout),
    "bilinear": lambda x, **layout: ops.gpu_resize(x, (113, 71), **layout),
    "nearest": lambda x, **layout: ops.gpu_resize(x, (113, 71), mode="nearest", **layout),
    "unsharp of all": lambda x, **layout: ops.gpu_unsharp_mask(x, threshold=0.0, **layout),
}


def noise(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def apart(on_device, on_host):
    assert on_device.is_cuda
    assert on_device.dtype == on_host.dtype
    return (on_device.cpu().double() - on_host.double()).abs().max().item()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_face_is_resized_as_on_the_cpu(size, dtype):
    face = noise(1, 256, 256, 3).to(dtype)
    assert apart(ops.gpu_resize(face.cuda(), size), ops.gpu_resize(face, size)) <= LEVEL[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TAKING_IMAGES)
def test_images_of_any_size_come_out_as_on_the_cpu(name, size, dtype):
    step = TAKING_IMAGES[name]
    for layout, shape in (("HWC", (*size, 3)), ("BHWC", (2, *size, 1)), ("BCHW", (2, 3, *size))):
        x = noise(2, *shape).to(dtype)
        assert apart(step(x.cuda(), layout=layout), step(x, layout=layout)) <= LEVEL[dtype]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_allowing_reduced_precision_changes_nothing(dtype):
    image = noise(4, 200, 150, 3).to(dtype)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        for name, step in TAKING_IMAGES.items():
            # Resize and blur of uint8 are integer arithmetic; unsharp is not.
            exact = dtype == torch.uint8 and "unsharp" not in name
            assert apart(step(image.cuda()), step(image)) <= (0 if exact else LEVEL[dtype])
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("corner", [(100, 80), (-40, 30), (250, 200), (60, -50), (900, 900)])
def test_a_face_is_blended_as_on_the_cpu(corner, dtype):
    body, face, mask = (
        noise(5, 2, 240, 320, 3).to(dtype),
        noise(6, 2, 256, 256, 3).to(dtype),
        noise(7, 150, 150),
    )
    x, y = corner
    bbox, crop = (x + 20, y + 10, x + 112, y + 148), (x, y, x + 150, y + 150)
    blended = ops.gpu_image_blending(body.cuda(), face.cuda(), bbox, mask.cuda(), crop)
    assert apart(blended, ops.gpu_image_blending(body, face, bbox, mask, crop)) <= LEVEL[dtype]


def test_nothing_waits_for_the_device_once_its_tables_are_there():
    body, face, mask = noise(5, 240, 320, 3).cuda(), noise(6, 256, 256, 3).cuda(), noise(7, 150, 150).cuda()
    bbox, crop = (20, 10, 112, 148), (0, 0, 150, 150)

    def frame():
        return ops.gpu_image_blending(body, ops.gpu_unsharp_mask(face), bbox, mask, crop)

    expected = frame()
    torch.cuda.synchronize()
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = frame()
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert torch.equal(result, expected)
