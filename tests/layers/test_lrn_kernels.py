"""The kernels of local response normalization against the formula in float64, and each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.layers import LocalResponseNorm, lrn_pieces
from alexnet.layers.lrn_kernels import (
    Compiled,
    Kernel,
    KernelNorm,
    Window,
    best_kernel,
    plain,
)
from alexnet.layers.lrn_pieces import InPieces
from alexnet.models import create_model
from alexnet.models.contract import Network
from alexnet.native import native

KERNELS: dict[str, Kernel] = {"pieces": InPieces()}
if (library := native().library) is not None:
    KERNELS["compiled"] = Compiled(library)
LAYOUTS = ("maps", "channels last", "neither")


def laid(x: Tensor, layout: str) -> Tensor:
    if layout == "channels last":
        return x.movedim(1, -1).contiguous().movedim(-1, 1)
    return x.movedim(1, 0).contiguous().movedim(0, 1) if layout == "neither" else x.contiguous()


def forward_and_backward(
    kernel: Kernel | None, x: Tensor, g: Tensor, window: Window, groups: int
) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    given = (x, window, groups)
    y = plain(*given) if kernel is None else KernelNorm.apply(*given, kernel)
    (dx,) = torch.autograd.grad(y, x, g)
    return y.detach(), dx


def test_a_compiler_is_here_and_used() -> None:
    assert "compiled" in KERNELS, native().why
    assert isinstance(best_kernel(), Compiled)


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(sorted(KERNELS)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    layout=st.sampled_from(LAYOUTS),
    window=st.builds(
        Window,
        below=st.integers(0, 6),
        above=st.integers(0, 6),
        factor=st.floats(1e-4, 0.5),
        beta=st.sampled_from([0.75, 0.5, 0.6, 1.0, 1.25]),
        k=st.floats(0.5, 2.0),
        rectify=st.booleans(),
    )
    | st.builds(
        Window,  # the paper's, which whole vectors have a way of their own for
        below=st.just(2),
        above=st.just(2),
        factor=st.floats(1e-4, 0.5),
        beta=st.just(0.75),
        k=st.floats(0.5, 2.0),
        rectify=st.booleans(),
    ),
    groups=st.integers(1, 2),
    channels=st.integers(1, 20) | st.sampled_from([16, 32, 48]),
    places=st.sampled_from([(), (1,), (5, 3), (13, 11), (2, 3, 4)]),
    seed=st.integers(0, 99),
)
def test_every_kernel_is_the_formula(
    name: str,
    dtype: torch.dtype,
    layout: str,
    window: Window,
    groups: int,
    channels: int,
    places: tuple[int, ...],
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    shape = (3, channels * groups, *places)
    x, g = (laid((torch.randn(shape, generator=random) * 3).to(dtype), layout) for _ in range(2))
    wanted = forward_and_backward(None, x.double(), g.double(), window, groups)
    got = forward_and_backward(KERNELS[name], x, g, window, groups)
    eps = torch.finfo(dtype).eps
    rtol = 1e-5 if dtype == torch.float32 else 0.6 * eps  # half an ulp, and the arithmetic's own
    for mine, right in zip(got, wanted, strict=True):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), right, rtol=rtol, atol=max(rtol, 2e-5))
    if layout != "neither":
        assert all(mine.stride() == x.stride() for mine in got)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["maps", "channels last"])
def test_the_same_bits_for_any_number_of_threads(
    name: str, dtype: torch.dtype, layout: str
) -> None:
    x, g = (laid(torch.randn(3, 96, 27, 27), layout).to(dtype) for _ in range(2))
    window, before = Window(2, 2, 1e-4, 0.75, 2.0), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(forward_and_backward(KERNELS[name], x, g, window, 2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found for a, b in zip(other, found[0], strict=True))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("places", "channels", "reach"), [((), 8, 1), ((5, 5), 8, 1), ((), 32, 2)])
def test_numbers_at_the_ends_of_the_range(
    name: str, dtype: torch.dtype, places: tuple[int, ...], channels: int, reach: int
) -> None:
    window = Window(reach, reach, 1e-4, 0.75, 2.0)
    x = torch.zeros(2, channels, *places, dtype=dtype)
    x[0, 5], x[0, 0], x[1, 4] = float("nan"), 1e30, float("inf")
    y = KernelNorm.apply(x, window, 1, KERNELS[name])
    torch.testing.assert_close(y, plain(x, window, 1), equal_nan=True)
    assert y[0, 5].isnan().all()
    assert not y[0, 0].isnan().any()


@pytest.mark.parametrize("layout", ["maps", "channels last"])
@pytest.mark.parametrize(("beta", "rectify"), [(0.75, False), (0.6, True)])
def test_pieces_are_computed_alike_and_apart(
    layout: str, beta: float, rectify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lrn_pieces, "PIECE", 1000)
    x, g = (laid(torch.randn(7, 20, 13), layout) for _ in range(2))
    x[1, 4, 2] = float("nan")
    window = Window(6, 3, 0.1, beta, 2.0, rectify)
    wanted = forward_and_backward(None, x.double(), g.double(), window, 1)
    got = forward_and_backward(KERNELS["pieces"], x, g, window, 1)
    for mine, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, right.float(), rtol=1e-5, atol=2e-5, equal_nan=True)
        assert 0 < mine.isnan().sum() < 20 * 2


def test_pieces_become_small_where_others_keep_the_processors_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    workspace = lrn_pieces._Workspace

    def counted(blocks: int, shape: lrn_pieces.Shape, window: Window) -> object:
        made.append(blocks * shape.channels * shape.places)
        return workspace(blocks, shape, window)

    monkeypatch.setattr(lrn_pieces, "_Workspace", counted)
    x, g = (laid(torch.randn(4, 96, 27, 27), "channels last") for _ in range(2))
    window = Window(2, 2, 1e-4, 0.75, 2.0)
    usual = forward_and_backward(KERNELS["pieces"], x, g, window, 1)
    whole = list(made)
    assert max(whole) > 90_000
    made.clear()
    monkeypatch.setattr(lrn_pieces, "SLOW", 0.0)
    found = forward_and_backward(KERNELS["pieces"], x, g, window, 1)
    assert sorted(made)[-2:] == [max(whole)] * 2  # the first of each direction
    assert len(made) > 4
    assert all(size <= lrn_pieces.ALONE for size in sorted(made)[:-2])
    assert all(torch.equal(a, b) for a, b in zip(found, usual, strict=True))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("places", "channels", "below"), [((), 8, 1), ((5, 5), 8, 1), ((), 32, 2)])
@pytest.mark.parametrize(("k", "size"), [(0.0, 1e-10), (0.0, 1e-3), (2.0, 1e14), (0.0, 1e14)])
def test_gradients_at_the_ends_of_the_range(
    name: str, places: tuple[int, ...], channels: int, below: int, k: float, size: float
) -> None:
    random = torch.Generator().manual_seed(0)
    x, g = (torch.randn(2, channels, *places, generator=random) for _ in range(2))
    window = Window(below, 2, 1e-2, 0.75, k)
    wanted = forward_and_backward(None, x.double() * size, g.double(), window, 1)
    got = forward_and_backward(KERNELS[name], x * size, g, window, 1)
    for mine, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(
            mine.double(), right, rtol=1e-4, atol=1e-5 * float(right.abs().max())
        )


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("channels", [8, 32])
def test_a_window_of_zeros_takes_no_other_with_it(name: str, channels: int) -> None:
    x = torch.zeros(1, channels)
    x[0, :2] = 1.0
    window = Window(2, 2, 0.1, 0.75, 0.0)
    _, dx = forward_and_backward(KERNELS[name], x, torch.ones_like(x), window, 1)
    assert dx[0, :4].isfinite().all()


def test_pieces_are_float32_whatever_is_the_default() -> None:
    x, g = (torch.randn(2, 8, 3) for _ in range(2))
    window = Window(2, 2, 0.1, 0.75, 2.0)
    wanted = forward_and_backward(KERNELS["pieces"], x, g, window, 1)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            got = forward_and_backward(KERNELS["pieces"], x, g, window, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_second_gradients_are_those_of_the_formula() -> None:
    window = Window(2, 2, 0.1, 0.75, 2.0)

    def penalty(norm: str) -> Tensor:
        x = torch.linspace(-2, 2, 2 * 8 * 3).view(2, 8, 3).requires_grad_()
        y = plain(x, window, 1) if norm == "plain" else KernelNorm.apply(x, window, 1, InPieces())
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return second

    torch.testing.assert_close(penalty("kernel"), penalty("plain"))


@pytest.mark.parametrize("preset", ["paper", "original"])
def test_a_network_is_its_steps_and_hooks_see_the_relu(preset: str) -> None:
    network = create_model("alexnet", image_size=67, hidden=16, preset=preset, init="default")
    assert isinstance(network, Network)
    x = torch.randn(2, 3, 67, 67)
    last, _ = network.forward_intermediates(x)
    torch.testing.assert_close(network.forward_features(x), last)
    parameters = [network.get_parameter(f"conv{number}.weight") for number in (1, 2)]
    wanted = torch.autograd.grad(last.square().sum(), parameters)
    got = torch.autograd.grad(network.forward_features(x).square().sum(), parameters)
    for mine, right in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine, right)
    seen: list[Tensor] = []
    network.get_submodule("act2").register_forward_hook(lambda module, given, out: seen.append(out))
    torch.testing.assert_close(network.forward_features(x), last)
    assert len(seen) == 1
    assert seen[0].min() == 0


def test_it_can_be_mapped_and_exported() -> None:
    norm, x = LocalResponseNorm(5, 0.1, k=2.0), torch.randn(2, 8, 3, 3)
    wanted = norm(x)
    each = torch.func.vmap(lambda one: norm(one[None])[0])(x)
    torch.testing.assert_close(each, wanted)
    torch.testing.assert_close(torch.export.export(norm, (x,)).module()(x), wanted)


def test_an_empty_batch_stays_one() -> None:
    x = torch.empty(0, 8, 3, 3, requires_grad=True)
    y = LocalResponseNorm(5)(x)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "ALEXNET_CACHE": str(tmp_path / "cache")}


ASK = """
import torch
from alexnet.layers import LocalResponseNorm, lrn_kernels
from alexnet.layers.lrn_kernels import best_kernel
from alexnet.native import native
y = LocalResponseNorm(5)(torch.ones(1, 8, 2, 2))
print(type(best_kernel()).__name__, "|", native().why, "|", y.sum().item())
"""


def ask(environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return [part.strip() for part in done.stdout.split("|")]


def test_compiled_once_and_then_loaded(cache: dict[str, str]) -> None:
    kind, why, result = ask(cache)
    assert kind == "Compiled"
    (built,) = Path(cache["ALEXNET_CACHE"], "native").iterdir()
    assert str(built) in why
    written = built.stat().st_mtime_ns
    assert ask(cache)[2] == result
    assert built.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"ALEXNET_NATIVE": "0"}, "turned off by ALEXNET_NATIVE=0"),
        ({"CC": "/bin/false"}, "/bin/false failed"),
        ({"CC": "no-such-compiler"}, "no-such-compiler failed"),
        ({"PATH": "/nowhere", "CC": ""}, "no C compiler was found"),
        ({"ALEXNET_CACHE": "/proc/nowhere"}, "failed"),
    ],
    ids=["turned off", "a compiler that fails", "none of that name", "none", "no cache folder"],
)
def test_without_a_compiler_torch_s_operations_serve(
    more: dict[str, str], why: str, cache: dict[str, str]
) -> None:
    kind, told, result = ask({**cache, **more})
    assert kind == "InPieces"
    assert why in told
    assert float(result) == pytest.approx(32 * (1 + 1e-4) ** -0.75, rel=1e-3)


def test_second_gradients_of_maps_that_lie_neither_way() -> None:
    window = Window(2, 2, 0.3, 0.75, 2.0)
    found = []
    for way in (LocalResponseNorm(5, 1.5, 0.75, 2.0), lambda x: plain(x, window, 1)):
        x = torch.linspace(-2, 2, 160, dtype=torch.float32).view(1, 8, 4, 5).requires_grad_()
        (first,) = torch.autograd.grad(way(x[:, 1:7, :, ::2]).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_zeros_without_a_constant_have_a_gradient(kernel: str) -> None:
    """The gap behind a row of channels has a sum of zero, whose power is infinite."""
    window = Window(2, 2, 0.2, 0.75, 0.0)
    x = torch.tensor([[1.0, 2.0, -1.0, 3.0, 0.5, 1.5, 0.0, 0.0]], requires_grad=True)
    (wanted,) = torch.autograd.grad(plain(x, window, 1).sum(), x)
    (found,) = torch.autograd.grad(KernelNorm.apply(x, window, 1, KERNELS[kernel]).sum(), x)
    assert wanted.isfinite().all()
    torch.testing.assert_close(found, wanted)
