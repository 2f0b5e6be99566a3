"""The GPU's kernel of response normalization, run by Triton's interpreter; on a GPU: test_gpu."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor

from alexnet.layers.lrn_kernels import KernelNorm, Window, plain

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs it itself")


@pytest.fixture(scope="module")
def triton_kernel() -> ModuleType:
    return importlib.import_module("alexnet.layers.lrn_triton")


def both_ways(x: Tensor, g: Tensor, window: Window, groups: int, kernel: object) -> list[Tensor]:
    x = x.detach().requires_grad_()
    given = (x, window, groups)
    y = plain(*given) if kernel is None else KernelNorm.apply(*given, kernel)
    return [y.detach(), *torch.autograd.grad(y, x, g)]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "window",
    [
        Window(2, 2, 0.3, 0.75, 2.0),
        Window(2, 2, 0.3, 0.75, 2.0, rectify=True),
        Window(3, 1, 0.5, 0.6, 1.0),
        Window(0, 0, 0.2, 1.25, 0.5),
        Window(9, 9, 0.2, 0.75, 1.0),
    ],
)
def test_the_kernel_is_the_formula(
    triton_kernel: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    wide: bool,
    layout: torch.memory_format,
    groups: int,
    window: Window,
) -> None:
    if wide:  # as where a tensor's places do not fit into 32 bits
        monkeypatch.setattr(triton_kernel, "_INT32", 0)
    torch.manual_seed(0)
    x = torch.randn(3, 12, 7, 5).mul(3).to(memory_format=layout)  # more than a program's share
    g = torch.randn_like(x)
    wanted = both_ways(x.double(), g.double(), window, groups, None)
    found = both_ways(x, g, window, groups, triton_kernel.Triton())
    for ours, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-5, atol=2e-6)


def test_half_precision_is_computed_in_single(triton_kernel: ModuleType) -> None:
    torch.manual_seed(0)
    x = (30 * torch.randn(2, 12, 3, 3)).half()  # whose squares half precision does not hold
    g, window = torch.randn_like(x), Window(2, 2, 100.0, 0.75, 2.0)
    wanted = both_ways(x.double(), g.double(), window, 1, None)
    for ours, right in zip(both_ways(x, g, window, 1, triton_kernel.Triton()), wanted, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=2e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_constant_of_zero_meets_no_channel_that_is_not_there(triton_kernel: ModuleType) -> None:
    x = torch.rand(2, 3, 4, 4) + 0.1
    window, kernel = Window(2, 2, 1.0, 0.75, 0.0), triton_kernel.Triton()
    for found in both_ways(x, torch.ones_like(x), window, 1, kernel):
        assert found.isfinite().all()


def test_what_is_not_a_number_stays_so(triton_kernel: ModuleType) -> None:
    window = Window(2, 2, 0.3, 0.75, 2.0, rectify=True)
    x = torch.ones(1, 12, 2, 2)
    x[0, 5, 0, 0] = float("nan")
    found = both_ways(x, torch.ones_like(x), window, 1, triton_kernel.Triton())
    wanted = both_ways(x, torch.ones_like(x), window, 1, None)
    for ours, right in zip(found, wanted, strict=True):
        assert right.isnan().any()
        assert torch.equal(ours.isnan(), right.isnan())
