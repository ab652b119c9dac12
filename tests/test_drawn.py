"""Levels of what a decoder drew, also where many of its values are one in memory."""

import numpy as np
import pytest
import torch

from musetalk_cli.ops.drawn import are_finite, levels

SHAPES = [(3, 3, 4, 5), (1, 1, 1, 1), (3, 1, 1, 1), (1, 3, 1, 1), (3, 3, 1, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_expanded_picture_has_the_levels_of_its_copy(shape, dtype):
    drawn = (3 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 1.5).to(dtype)
    whole = drawn.expand(3, 3, 4, 5)
    values = np.broadcast_to(drawn.double().numpy(), (3, 3, 4, 5))
    expected = np.rint(np.clip(values.astype(np.float32) / 2 + np.float32(0.5), 0, 1) * 255)[:, ::-1]
    found = levels(whole)
    assert (found.dtype, found.shape) == (torch.uint8, (3, 4, 5, 3))
    assert np.array_equal(found.numpy(), expected.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_mark_for_each_picture_also_where_it_is_expanded(broken):
    one = torch.tensor([0.0, broken, 1.0])[:, None, None, None]
    for given in (one.expand(3, 3, 4, 5), one.expand(3, 3, 4, 5).contiguous()):
        assert are_finite(given).tolist() == [True, False, True]
    same = torch.tensor([[[[broken]]]]).expand(2, 3, 4, 5)
    assert are_finite(same).tolist() == [False, False]
