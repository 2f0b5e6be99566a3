"""LeNet's stage in one pass against the modules it stands for, in float64."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import alexnet
from alexnet import native
from alexnet.layers import ScaledTanh, SparseConv2d, lenet_stage
from alexnet.layers.lenet_stage import LEAST, SQUASHES, cover, stage_means
from alexnet.models.contract import Network
from alexnet.models.lenet import C3_TABLE

USED = "_StageBackward"


def modules_in_float64(
    x: Tensor, convolution: nn.Conv2d, squash: nn.Module, g: Tensor
) -> list[Tensor]:
    assert convolution.bias is not None
    inputs = [
        t.detach().double().requires_grad_() for t in (x, convolution.weight, convolution.bias)
    ]
    wide, weight, bias = inputs
    y = F.avg_pool2d(squash(F.conv2d(wide, weight, bias)), 2)
    return [y, *torch.autograd.grad(y, inputs, g.double())]


@settings(max_examples=80, deadline=None)
@given(
    squash=st.sampled_from(list(SQUASHES)),
    pictures=st.integers(LEAST, 40),
    inputs=st.integers(1, 7),
    outputs=st.integers(1, 19),
    height=st.integers(6, 15),
    width=st.integers(6, 15),
    seed=st.integers(0, 99),
)
def test_it_is_the_modules(
    squash: type[nn.Module],
    pictures: int,
    inputs: int,
    outputs: int,
    height: int,
    width: int,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    convolution, act = nn.Conv2d(inputs, outputs, 5), squash()
    x = (torch.randn(pictures, inputs, height, width) * 2).requires_grad_()
    y = stage_means(x, convolution, act)
    assert type(y.grad_fn).__name__ == USED
    g = torch.randn_like(y)
    got = [y, *torch.autograd.grad(y, [x, *convolution.parameters()], g)]
    for mine, right in zip(got, modules_in_float64(x, convolution, act, g), strict=True):
        scale = max(1.0, right.abs().max().item())
        torch.testing.assert_close(mine.double(), right, rtol=0, atol=3e-6 * scale)


@pytest.mark.parametrize("squash", SQUASHES)
def test_squashing_is_exact_near_zero_and_far_away(squash: type[nn.Module]) -> None:
    ends = torch.tensor([0.0, 1e-30, 1e-8, 1e-3, 0.1, 0.3, 1.0, 5.0, 9.0, 30.0, 1e4, 1e30])
    values = torch.cat((ends, -ends, torch.linspace(-12, 12, 4000)))
    x = values.repeat_interleave(4).view(-1, 1, 2, 2)
    convolution = nn.Conv2d(1, 1, 5)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[0, 0, 0, 0] = 1
        convolution.bias.zero_()  # type: ignore[union-attr]
        y = stage_means(F.pad(x, (0, 4, 0, 4)), convolution, squash())
    right = squash()(values.double())
    torch.testing.assert_close(y.view(-1).double(), right, rtol=4e-7, atol=1e-34)


def test_what_is_not_a_number_stays_with_its_picture() -> None:
    x = torch.randn(6, 1, 8, 8)
    x[2, 0, 4, 4] = float("nan")
    y = stage_means(x, nn.Conv2d(1, 3, 5), nn.Tanh())
    assert y[2].isnan().all()
    assert not y[[0, 1, 3, 4, 5]].isnan().any()


@pytest.fixture
def several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor of four cores; the tests have one thread otherwise."""
    monkeypatch.setattr(lenet_stage, "_threads", lambda: 4)


def test_the_same_bits_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    convolution, x = nn.Conv2d(6, 16, 5), torch.randn(70, 6, 14, 14)
    found = []
    for threads in (1, 2, 3, 40):
        monkeypatch.setattr(lenet_stage, "_threads", lambda threads=threads: threads)
        y = stage_means(x, convolution, nn.Tanh())
        grads = torch.autograd.grad(y.square().sum(), list(convolution.parameters()))
        found.append([y.detach(), *grads])
    assert all(torch.equal(a, b) for other in found for a, b in zip(other, found[0], strict=True))


@pytest.mark.usefixtures("several_threads")
def test_threads_that_call_at_once_and_a_process_that_was_forked() -> None:
    convolution, x = nn.Conv2d(1, 6, 5), torch.randn(64, 1, 32, 32)
    wanted = stage_means(x, convolution, nn.Tanh()).detach()

    def work(times: int) -> bool:
        return all(
            torch.equal(stage_means(x, convolution, nn.Tanh()), wanted) for _ in range(times)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: there are threads
        child = os.fork()
    if child == 0:
        os._exit(0 if work(50) else 1)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [100] * 4))
    assert os.waitpid(child, 0)[1] == 0


def test_sparse_connections() -> None:
    sparse = SparseConv2d(6, C3_TABLE, 5)
    x = torch.randn(8, 6, 14, 14)
    y = stage_means(x, sparse, ScaledTanh())
    torch.testing.assert_close(y, F.avg_pool2d(ScaledTanh()(sparse(x)), 2))
    assert torch.autograd.grad(y.sum(), sparse.weight)[0].shape == (60, 5, 5)


def test_gradients_of_gradients() -> None:
    convolution, x = nn.Conv2d(1, 2, 5), torch.randn(4, 1, 8, 8, requires_grad=True)
    found = []
    for y in (
        stage_means(x, convolution, nn.Tanh()),
        F.avg_pool2d(convolution(x).tanh(), 2),
    ):
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), convolution.weight)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["lenet5", "lenet5_dense"])
@pytest.mark.parametrize("activation", ["tanh", "scaled_tanh", "sigmoid", "relu"])
def test_a_network_is_its_steps(name: str, activation: str) -> None:
    torch.manual_seed(0)
    network = alexnet.create_model(name, activation=activation)
    assert isinstance(network, Network)
    x = torch.randn(5, 1, 32, 32)
    last, found = network.forward_intermediates(x)
    torch.testing.assert_close(network.forward_features(x), last)
    assert len(found) == 5


@pytest.mark.parametrize("watched", ["c1", "act1", "s2", "c5"])
def test_hooks_see_what_their_modules_do(watched: str) -> None:
    network = alexnet.create_model("lenet5_dense")
    seen: list[Tensor] = []
    network.get_submodule(watched).register_forward_hook(lambda m, i, out: seen.append(out))
    network(torch.randn(8, 1, 32, 32))
    assert len(seen) == 1


def test_other_precisions_devices_and_tracers_get_the_modules() -> None:
    network = alexnet.create_model("lenet5_dense")
    x = torch.randn(8, 1, 32, 32)
    wanted = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x).dtype == torch.bfloat16
    torch.testing.assert_close(network.double()(x.double()).float(), wanted)
    network.float()
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), wanted)
    each = torch.func.vmap(lambda one: network(one[None])[0])(x)
    torch.testing.assert_close(each, wanted)
    one = torch.cat([network(picture[None]) for picture in x])
    torch.testing.assert_close(one, wanted)
    assert network(x[:0]).shape == (0, 10)


def test_a_kernel_as_large_as_the_map_is_a_product() -> None:
    convolution, x = nn.Conv2d(3, 7, 5), torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(cover(x, convolution), convolution(x))
    larger = torch.randn(4, 3, 6, 6)
    assert torch.equal(cover(larger, convolution), convolution(larger))


@pytest.mark.parametrize("flags", ["", "-mavx2 -mfma"])
def test_other_processors_vectors(flags: str, tmp_path: Path) -> None:
    """What this processor can also do: 4 and 8 numbers a vector."""
    built = tmp_path / "library.so"
    sources = sorted(Path(native.__file__).parent.glob("*.c"))
    line = ["cc", "-O2", "-std=gnu11", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi", *flags.split()]
    subprocess.run([*line, *map(str, sources), "-lm", "-o", str(built)], check=True)
    code = f"""
import ctypes, functools, torch
from alexnet import native
native.native = functools.cache(lambda: native.Native(ctypes.CDLL({str(built)!r}), "given"))
from alexnet.layers import lenet_stage, lrn_kernels
lenet_stage.native = lrn_kernels.native = native.native
torch.manual_seed(0)
c, x = torch.nn.Conv2d(3, 7, 5), torch.randn(9, 3, 12, 14, requires_grad=True)
y = lenet_stage.stage_means(x, c, torch.nn.Tanh())
assert type(y.grad_fn).__name__ == {USED!r}
right = torch.nn.functional.avg_pool2d(c(x).tanh(), 2)
torch.testing.assert_close(y, right)
for a, b in zip(*(torch.autograd.grad(z.square().sum(), (x, *c.parameters())) for z in (y, right))):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
window = lrn_kernels.Window(2, 2, 1e-2, 0.75, 2.0)
x = torch.randn(3, 96, 5, 7, requires_grad=True)
for laid in (x, x.contiguous(memory_format=torch.channels_last)):
    y = lrn_kernels.KernelNorm.apply(laid, window, 2, lrn_kernels.best_kernel())
    assert isinstance(lrn_kernels.best_kernel(), lrn_kernels.Compiled)
    right = lrn_kernels.plain(laid, window, 2)
    torch.testing.assert_close(y, right, rtol=1e-5, atol=1e-6)
    for a, b in zip(*(torch.autograd.grad(z.square().sum(), x) for z in (y, right))):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
"""

    subprocess.run([sys.executable, "-c", code], check=True)


def test_gradients_of_gradients_of_channels_last() -> None:
    network = alexnet.create_model("lenet5_dense").to(memory_format=torch.channels_last)
    x = torch.randn(LEAST, 1, 32, 32)
    (first, *_) = torch.autograd.grad(
        network(x).square().sum(), list(network.parameters()), create_graph=True
    )
    found = torch.autograd.grad(first.square().sum(), next(network.parameters()))[0]
    assert found.isfinite().all()
    assert found.abs().sum() > 0
