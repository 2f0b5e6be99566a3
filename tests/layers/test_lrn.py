"""Local response normalization against the formula, written as loops, and against torch's."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet.layers import LocalResponseNorm, SpatialResponseNorm, local_response_norm


def by_the_formula(
    x: Tensor, size: int, alpha: float, beta: float, k: float, mode: str, groups: int
) -> Tensor:
    """Section 3.3: b[i] = a[i] / (k + alpha * sum of a[j]^2 over the window) ^ beta, in float64."""
    a = x.double()
    channels = a.shape[1]
    within = channels // groups
    factor = alpha / size if mode == "mean" else alpha
    columns = []
    for i in range(channels):
        first = (i // within) * within
        low = max(first, i - size // 2)
        high = min(first + within - 1, i + (size - 1) // 2)
        total = torch.zeros_like(a[:, 0])
        for j in range(low, high + 1):
            total = total + a[:, j] ** 2
        columns.append(a[:, i] / (k + factor * total) ** beta)
    return torch.stack(columns, 1)


@settings(max_examples=60, deadline=None)
@given(
    channels=st.integers(1, 6),
    groups=st.integers(1, 3),
    size=st.integers(1, 14),
    alpha=st.floats(1e-4, 2.0),
    beta=st.floats(0.25, 1.5),
    k=st.floats(0.5, 2.0),
    mode=st.sampled_from(["mean", "sum"]),
    dims=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_is_the_formula(channels, groups, size, alpha, beta, k, mode, dims, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, channels * groups, *(3, 2, 4)[:dims])
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * 3
    wanted = by_the_formula(x, size, alpha, beta, k, mode, groups)
    got = local_response_norm(x, size, alpha, beta, k, alpha_mode=mode, groups=groups)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    single = local_response_norm(x.float(), size, alpha, beta, k, alpha_mode=mode, groups=groups)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize(("size", "groups"), [(5, 1), (5, 2), (4, 1), (9, 2)])
def test_gradient(mode, size, groups):
    x = torch.randn(2, 8, 3, dtype=torch.float64, requires_grad=True)
    settings_ = {"alpha_mode": mode, "groups": groups}
    assert torch.autograd.gradcheck(
        lambda a: local_response_norm(a, size, 0.5, 0.75, 2.0, **settings_), x
    )
    seed = torch.randn(2, 8, 3, dtype=torch.float64)
    (ours,) = torch.autograd.grad(
        local_response_norm(x, size, 0.5, 0.75, 2.0, **settings_), x, seed
    )
    (theirs,) = torch.autograd.grad(by_the_formula(x, size, 0.5, 0.75, 2.0, mode, groups), x, seed)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 40])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_drop_in_for_torch(size, dims):
    x = torch.randn(2, 11, *(6, 5, 4)[:dims]) * 4
    ours = LocalResponseNorm(size, 0.3, 0.6, 1.5)(x)
    torch.testing.assert_close(ours, nn.LocalResponseNorm(size, 0.3, 0.6, 1.5)(x))


def test_defaults_are_torch_s():
    x = torch.randn(1, 12, 4, 4) * 30
    torch.testing.assert_close(LocalResponseNorm(5)(x), nn.LocalResponseNorm(5)(x))


def test_paper_formula_is_five_times_alpha_of_torch():
    x = torch.randn(1, 16, 4, 4) * 30
    paper = LocalResponseNorm(5, 1e-4, 0.75, 2.0, alpha_mode="sum")(x)
    torch.testing.assert_close(paper, nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)(x))
    assert not torch.allclose(paper, LocalResponseNorm(5, 1e-4, 0.75, 2.0)(x), rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    x = (torch.randn(2, 10, 5, 5) * 200).to(dtype).requires_grad_()
    y = LocalResponseNorm(5, 1e-4, 0.75, 2.0, alpha_mode="sum")(x)
    assert y.dtype == dtype
    wanted = by_the_formula(x.detach(), 5, 1e-4, 0.75, 2.0, "sum", 1)
    # The arithmetic is float32 (200^2 * 5 overflows float16); only the result is rounded.
    torch.testing.assert_close(y.detach(), wanted.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-3)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert torch.isfinite(x.grad).all()


def test_meta_and_channels_last():
    assert LocalResponseNorm(5, groups=2)(torch.empty(2, 8, 3, 3, device="meta")).is_meta
    x = torch.randn(2, 8, 5, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    y = LocalResponseNorm(5, 1.0, groups=2)(last)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, LocalResponseNorm(5, 1.0, groups=2)(x))


def test_does_not_change_its_input():
    x = torch.randn(2, 8, 3, 3)
    before = x.clone()
    LocalResponseNorm(5, 1.0)(x)
    assert torch.equal(x, before)


def test_towers_do_not_see_each_other():
    x = torch.randn(1, 8, 2, 2)
    y = LocalResponseNorm(5, 1.0, groups=2)(x)
    x[:, 4:] = 100.0
    assert torch.equal(LocalResponseNorm(5, 1.0, groups=2)(x)[:, :4], y[:, :4])


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"alpha_mode='total': choose from mean, sum"):
        LocalResponseNorm(5, alpha_mode=cast(Any, "total"))
    with pytest.raises(ValueError, match=r"size=0: a whole number of at least 1"):
        LocalResponseNorm(0)
    with pytest.raises(ValueError, match=r"7 channels cannot be split into groups=2"):
        local_response_norm(torch.zeros(1, 7), 5, groups=2)


def test_spatial_norm_is_its_formula():
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64)
    wanted = torch.empty_like(x)
    for row in range(4):
        for column in range(5):
            window = x[:, :, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            energy = window.square().sum((2, 3)) / 9
            wanted[:, :, row, column] = x[:, :, row, column] / (1 + 0.5 * energy) ** 0.75
    torch.testing.assert_close(SpatialResponseNorm(3, 0.5)(x), wanted)
    with pytest.raises(ValueError, match=r"size=4"):
        SpatialResponseNorm(4)
