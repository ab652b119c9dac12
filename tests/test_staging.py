"""What is staged arrives as it was."""

import numpy as np
import torch

from musetalk_cli.nets.staging import Staging

ARRAYS = (
    np.arange(15, dtype=np.float32).reshape(3, 5),
    np.arange(7, dtype=np.int64),
    np.zeros((0, 4), np.float32),
    np.arange(6, dtype=np.uint8)[::2],
)


def test_arrays_arrive_and_may_be_changed_afterwards():
    arrays = [array.copy() for array in ARRAYS]
    arrived = Staging(torch.device("cpu"))(*arrays)
    for array in arrays:
        array[:] = 0
    for expected, found in zip(ARRAYS, arrived, strict=True):
        assert (found.numpy().dtype, found.shape) == (expected.dtype, expected.shape)
        assert np.array_equal(found, expected)
