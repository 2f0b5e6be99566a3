"""Max-pooling with one byte a window, against torch's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet.layers import MaxPool2d
from alexnet.layers.max_pool import _Pooled
from alexnet.native import native


def laid(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Channels side by side; few values, so that many are equal."""
    drawn = torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(dtype).contiguous(memory_format=torch.channels_last)


def forward_and_backward(pool: nn.Module, x: Tensor, seed: int = 1) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    y = pool(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
    g = g.bfloat16().to(y.dtype)  # the same for every precision
    (dx,) = torch.autograd.grad(y, x, g)
    return y.detach(), dx


def uses_the_kernel(pool: nn.Module, x: Tensor) -> bool:
    return type(pool(x.detach().requires_grad_()).grad_fn).__name__ == f"{_Pooled.__name__}Backward"


def test_the_kernel_is_used_for_the_networks_maps() -> None:
    assert native().library is not None, native().why
    assert uses_the_kernel(MaxPool2d(3, 2), laid(2, 96, 55, 55, dtype=torch.bfloat16))


@settings(max_examples=150, deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    size=st.integers(1, 5),
    stride=st.integers(1, 6),
    ceil=st.booleans(),
    channels=st.integers(16, 50),
    height=st.integers(5, 17),
    width=st.integers(5, 17),
    seed=st.integers(0, 99),
)
def test_it_is_torchs_pooling(
    dtype: torch.dtype,
    size: int,
    stride: int,
    ceil: bool,
    channels: int,
    height: int,
    width: int,
    seed: int,
) -> None:
    x = laid(3, channels, height, width, dtype=dtype, seed=seed)
    x[0, 0, 0, 0], x[1, 1, 1, 1], x[2, 2, 2, 2] = float("nan"), float("-inf"), -0.0
    mine = MaxPool2d(size, stride, ceil_mode=ceil)
    theirs = nn.MaxPool2d(size, stride, ceil_mode=ceil)
    assert uses_the_kernel(mine, x)
    (y, dx), (wanted, by_torch) = forward_and_backward(mine, x), forward_and_backward(theirs, x)
    assert torch.equal(y.nan_to_num(99), wanted.nan_to_num(99))
    assert torch.equal(y.nan_to_num(99).signbit(), wanted.nan_to_num(99).signbit())
    if dtype == torch.float32:
        assert torch.equal(dx, by_torch)
        return
    # summed in float32 and rounded once: against the same in float64
    exact = forward_and_backward(theirs, x.double())[1].to(dtype)
    assert (dx - exact).abs().max() <= 2**-8 * exact.abs().max()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    x = torch.randn(4, 96, 27, 27).contiguous(memory_format=torch.channels_last)
    wanted = forward_and_backward(nn.MaxPool2d(3, 2), x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = forward_and_backward(MaxPool2d(3, 2), x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize(
    ("pool", "x"),
    [
        (MaxPool2d(3, 2), torch.randn(2, 32, 9, 9)),
        (MaxPool2d(3, 2), laid(2, 8, 9, 9)),
        (MaxPool2d(3, 2, padding=1), laid(2, 32, 9, 9)),
        (MaxPool2d(3, 2, dilation=2), laid(2, 32, 9, 9)),
        (MaxPool2d((3, 2), 2), laid(2, 32, 9, 9)),
        (MaxPool2d(3, 2), laid(2, 32, 9, 9, dtype=torch.float64)),
        (MaxPool2d(3, 2), torch.randn(32, 9, 9)),
        (MaxPool2d(2, 2, ceil_mode=True), laid(2, 32, 1, 9)),
    ],
    ids=["maps", "narrow", "padded", "dilated", "oblong", "double", "no batch", "small"],
)
def test_everything_else_is_left_to_torch(pool: MaxPool2d, x: Tensor) -> None:
    assert not uses_the_kernel(pool, x)
    theirs = nn.MaxPool2d(
        pool.kernel_size, pool.stride, pool.padding, pool.dilation, ceil_mode=pool.ceil_mode
    )
    found, wanted = forward_and_backward(pool, x), forward_and_backward(theirs, x)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


def test_a_gradient_that_lies_otherwise_is_read_right() -> None:
    x = torch.randn(2, 16, 7, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = MaxPool2d(3, 2)(x)
    (mine,) = torch.autograd.grad(y, x, torch.ones(1, 1, 1, 1).expand_as(y))
    (wanted,) = torch.autograd.grad(nn.MaxPool2d(3, 2)(x), x, torch.ones_like(y))
    assert torch.equal(mine, wanted)


def test_the_gradient_has_a_gradient() -> None:
    x = torch.randn(2, 16, 7, 7).contiguous(memory_format=torch.channels_last)
    found = []
    for pool in (MaxPool2d(3, 2), nn.MaxPool2d(3, 2)):
        leaf = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(pool(leaf).square().sum(), leaf, create_graph=True)
        (twice,) = torch.autograd.grad(dx.square().sum(), leaf)
        found.append((dx.detach(), twice))
    torch.testing.assert_close(found[0], found[1])


def test_one_byte_a_window_is_kept() -> None:
    kept: list[Tensor] = []
    x = laid(2, 96, 55, 55, dtype=torch.bfloat16).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = MaxPool2d(3, 2)(x)
    assert [(t.dtype, t.shape) for t in kept] == [(torch.uint8, y.shape)]
    with torch.inference_mode():
        assert torch.equal(MaxPool2d(3, 2)(x), y)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.parametrize("way", ["export", "trace"])
def test_what_is_exported_pools(way: str) -> None:
    x, other = laid(1, 16, 9, 9), laid(1, 16, 9, 9, seed=5)
    network = nn.Sequential(MaxPool2d(3, 2)).eval()
    assert uses_the_kernel(network, x)
    found: Any = (
        torch.export.export(network, (x,)).module()
        if way == "export"
        else torch.jit.trace(network, x)
    )
    torch.testing.assert_close(found(other), nn.MaxPool2d(3, 2)(other))
