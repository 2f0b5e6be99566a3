"""The GPU's kernel of max-pooling, run by Triton's interpreter; on a GPU: test_gpu."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.layers import MaxPool2d

max_pool_triton = pytest.importorskip("alexnet.layers.max_pool_triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs it itself")


def maps(*shape: int, kinds: int = 50) -> Tensor:
    """Whole numbers, so that some are equal."""
    torch.manual_seed(0)
    return torch.randint(0, kinds, shape).float().to(memory_format=torch.channels_last)


def ours(module: ModuleType, x: Tensor, g: Tensor, size: int, stride: int) -> tuple[Tensor, Tensor]:
    pool = module.Pool(*x.shape[1:], *g.shape[2:], size, stride)
    y, dx = torch.empty_like(g), torch.empty_like(x)
    index = torch.empty_like(g, dtype=torch.uint8)
    module.forward(pool, x, y, index)
    module.backward(pool, g, index, dx)
    return y, dx


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (2, 2), (3, 1), (2, 3), (5, 2)])
def test_it_is_torchs(
    monkeypatch: pytest.MonkeyPatch, size: int, stride: int, ceil: bool, wide: bool
) -> None:
    if wide:  # as where a map's places do not fit into 32 bits
        monkeypatch.setattr(max_pool_triton, "_INT32", 0)
    x = maps(2, 16, 12, 9).requires_grad_()
    y = F.max_pool2d(x, size, stride, ceil_mode=ceil)
    g = torch.randint_like(y, 9)  # whole, so that sums are exact in any order
    (dx,) = torch.autograd.grad(y, x, g)
    pooled, gradient = ours(max_pool_triton, x.detach(), g, size, stride)
    assert torch.equal(pooled, y)
    assert torch.equal(gradient, dx)


def test_what_is_not_a_number_is_the_largest() -> None:
    x = maps(1, 16, 7, 7)
    x[0, 3, 2, 2], x[0, 4, :3, :3] = float("nan"), float("-inf")
    y = MaxPool2d(3, 2)(x)
    pooled, gradient = ours(max_pool_triton, x, torch.ones_like(y), 3, 2)
    assert torch.equal(pooled.nan_to_num(777.0), y.nan_to_num(777.0))
    assert gradient.sum() == y.numel()
    assert gradient[0, 3, 2, 2] == 4
    assert gradient[0, 4, 0, 0] == 1  # of equal ones the first


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    x = maps(1, 16, 7, 7)
    y = MaxPool2d(3, 2)(x)
    pooled = torch.empty_like(y)
    max_pool_triton.forward(max_pool_triton.Pool(16, 7, 7, 3, 3, 3, 2), x, pooled, None)
    assert torch.equal(pooled, y)
