"""Locally connected layers against one convolution a position."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from alexnet.layers import LocallyConnected2d


@pytest.mark.parametrize("padding", [0, 1])
def test_each_position_has_its_own_kernel(padding):
    layer = LocallyConnected2d(2, 3, side=5, kernel_size=3, padding=padding).double()
    layer.bias.data.normal_()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    y = layer(x)
    assert y.shape == (2, 3, layer.out_side, layer.out_side)
    padded = F.pad(x, (padding,) * 4)
    for row in range(layer.out_side):
        for column in range(layer.out_side):
            kernel = layer.weight[row * layer.out_side + column].view(3, 2, 3, 3)
            window = padded[:, :, row : row + 3, column : column + 3]
            wanted = torch.einsum("nihw,oihw->no", window, kernel) + layer.bias[:, row, column]
            torch.testing.assert_close(y[:, :, row, column], wanted)


def test_equal_kernels_are_a_convolution():
    layer = LocallyConnected2d(2, 3, side=6, kernel_size=3, padding=1)
    layer.weight.data[:] = layer.weight.data[0]
    x = torch.randn(1, 2, 6, 6)
    wanted = F.conv2d(x, layer.weight[0].view(3, 2, 3, 3), padding=1)
    torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)


def test_refuses_maps_smaller_than_the_kernel():
    with pytest.raises(ValueError, match=r"smaller than"):
        LocallyConnected2d(1, 1, side=2, kernel_size=3)
