"""The convolution by way of the frequencies against torch's, and where which is taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.layers import Conv2d
from alexnet.layers import conv as module
from alexnet.layers.conv import Spectral
from alexnet.layers.spectral import Geometry, cost, plan
from alexnet.layers.spectral_kernels import InTorch, Kernel, best_kernel
from alexnet.models.registry import create_model

LAST = torch.channels_last
KERNELS = [InTorch(), best_kernel()]


def random_layer(
    pictures: int,
    inputs: int,
    outputs: int,
    sides: Sequence[int],
    kernel: Sequence[int],
    groups: int = 1,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, kernels and biases of noise."""
    torch.manual_seed(0)
    x = torch.randn(pictures, inputs, *sides, dtype=dtype).to(memory_format=LAST)
    weight = torch.randn(outputs, inputs // groups, *kernel, dtype=dtype)
    return x, weight / math.sqrt(weight[0].numel()), torch.randn(outputs, dtype=dtype)


def off(found: Tensor, exact: Tensor) -> float:
    """The difference's norm, as a share of what is exact."""
    found, exact = found.detach().double(), exact.detach()
    return float((found - exact).norm() / exact.norm())


@settings(deadline=None, max_examples=100)
@given(st.data())
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: type(kernel).__name__)
def test_equals_the_direct_convolution_in_every_gradient(
    kernel: Kernel, data: st.DataObject
) -> None:
    draw = data.draw
    window = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    padding = (draw(st.integers(0, window[0] - 1)), draw(st.integers(0, window[1] - 1)))
    least = [max(1, side - 2 * pad) for side, pad in zip(window, padding, strict=True)]
    sides = (draw(st.integers(least[0], least[0] + 12)), draw(st.integers(least[1], least[1] + 12)))
    groups = draw(st.integers(1, 3))
    inputs, outputs = (groups * draw(st.integers(1, 4)) for _ in range(2))
    biased = draw(st.booleans())
    wanted = list(random_layer(draw(st.integers(1, 3)), inputs, outputs, sides, window, groups))[
        : 3 if biased else 2
    ]
    geometry = Geometry(sides, window, padding)

    def results(convolve: Callable[..., Tensor], tensors: list[Tensor], g: Tensor) -> list[Tensor]:
        leaves = [tensor.requires_grad_() for tensor in tensors]
        y = convolve(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, g)]

    def direct(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)

    def ours(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        y: Tensor = Spectral.apply(x, weight, bias, geometry, groups, kernel)
        assert y.is_contiguous(memory_format=LAST)
        return y

    g = torch.randn(len(wanted[0]), outputs, *geometry.outputs, dtype=torch.float64)
    narrow = [tensor.float() for tensor in wanted]
    # Rounding is a share of the sums of absolute values.
    sums = results(direct, [tensor.abs() for tensor in wanted], g.abs())
    for found, exact, most in zip(
        results(ours, narrow, g.float()), results(direct, wanted, g), sums, strict=True
    ):
        assert found.shape == exact.shape
        assert float((found - exact).norm()) < 2e-6 * float(most.norm())


@pytest.mark.parametrize("layer", ["conv2", "conv3", "conv4", "conv5"])
def test_is_as_exact_as_direct_sums_on_the_layers_of_alexnet(layer: str) -> None:
    conv = create_model("alexnet").get_submodule(layer)
    assert isinstance(conv, Conv2d)
    side, groups = (27 if layer == "conv2" else 13), conv.groups
    x, weight, bias = random_layer(
        4, conv.in_channels, conv.out_channels, (side, side), conv.kernel_size, groups
    )
    pad = weight.shape[2] // 2
    exact = F.conv2d(x, weight, bias, padding=pad, groups=groups)
    geometry = Geometry((side, side), (weight.shape[2], weight.shape[3]), (pad, pad))
    narrow = x.float(), weight.float(), bias.float()
    for kernel in KERNELS:
        assert off(Spectral.apply(*narrow, geometry, groups, kernel), exact) < 2e-6


def layer_and_input(channels: int = 48, **changed: Any) -> tuple[Conv2d, Tensor]:
    """A layer that gains by it, in float32, and a batch."""
    torch.manual_seed(0)
    conv = Conv2d(channels, 64, 5, padding=2, **changed)
    conv = conv.to(memory_format=LAST)  # type: ignore[call-overload]
    return conv, torch.randn(64, channels, 15, 15).to(memory_format=LAST)


def bias_of(conv: Conv2d) -> Tensor:
    """Its bias, which it has."""
    assert conv.bias is not None
    return conv.bias


def takes_frequencies(conv: Conv2d, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a forward pass goes that way; its result is torch's in both cases."""
    calls: list[object] = []
    apply = Spectral.apply
    monkeypatch.setattr(
        module.Spectral, "apply", lambda *given: calls.append(given) or apply(*given)
    )
    found = conv(x)
    exact = nn.Conv2d.forward(conv, x)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
    return bool(calls)


def test_large_batches_go_by_the_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert takes_frequencies(*layer_and_input(), monkeypatch)
    assert takes_frequencies(*layer_and_input(groups=2), monkeypatch)
    assert takes_frequencies(*layer_and_input(bias=False), monkeypatch)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": 2},
        {"dilation": 2},
        {"padding_mode": "reflect"},
        {"dtype": torch.float64},
    ],
)
def test_other_layers_are_torchs(changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = layer_and_input(**changed)
    assert not takes_frequencies(conv, x.to(conv.weight.dtype), monkeypatch)


def test_other_inputs_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = layer_and_input()
    assert not takes_frequencies(conv, x[:2], monkeypatch)
    assert not takes_frequencies(conv, x.contiguous(), monkeypatch)
    monkeypatch.setenv("ALEXNET_SPECTRAL", "0")
    assert not takes_frequencies(conv, x, monkeypatch)
    monkeypatch.delenv("ALEXNET_SPECTRAL")
    assert takes_frequencies(conv, x, monkeypatch)


def test_bf16_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = layer_and_input()
    monkeypatch.setattr(module.Spectral, "apply", None)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_what_is_exported_or_mapped_is_made_of_torchs_operations() -> None:
    conv, x = layer_and_input()
    size = torch.export.Dim("batch", min=2, max=512)
    program = torch.export.export(conv, (x,), dynamic_shapes=({0: size},))
    assert "conv2d" in str(program.graph)
    assert program.module()(x[:3]).shape[0] == 3
    traced: Any = torch.jit.trace(conv, (x,), check_trace=False)
    assert "convolution" in str(traced.inlined_graph)
    mapped = torch.func.vmap(conv)(x[None])[0]
    torch.testing.assert_close(mapped, conv(x), rtol=1e-4, atol=1e-5)


def test_a_wrong_number_of_channels_is_torchs_error() -> None:
    conv, x = layer_and_input()
    with pytest.raises(RuntimeError, match="to have 48 channels, but got 40"):
        conv(x[:, :40].contiguous(memory_format=LAST))


def test_what_needs_no_gradient_has_none() -> None:
    conv, x = layer_and_input()
    conv.weight.requires_grad_(False)
    (db,) = torch.autograd.grad(conv(x).sum(), bias_of(conv))
    torch.testing.assert_close(db, torch.full((64,), 64.0 * 15 * 15), rtol=1e-5, atol=0)
    x.requires_grad_()
    (dx,) = torch.autograd.grad(conv(x).square().sum(), x)
    (exact,) = torch.autograd.grad(nn.Conv2d.forward(conv, x).square().sum(), x)
    torch.testing.assert_close(dx, exact, rtol=1e-4, atol=1e-4)


def test_a_gradient_of_the_gradient_is_torchs() -> None:
    conv, x = layer_and_input()
    x.requires_grad_()

    def penalty(y: Tensor) -> tuple[Tensor, ...]:
        (dx,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [conv.weight, bias_of(conv), x])

    for ours, theirs in zip(penalty(conv(x)), penalty(nn.Conv2d.forward(conv, x)), strict=True):
        assert off(ours, theirs.double()) < 1e-5


def test_a_picture_that_is_not_a_number_spoils_no_other() -> None:
    conv, x = layer_and_input()
    clean = conv(x)
    x[5] = math.nan
    rest = [n for n in range(64) if n != 5]
    assert torch.equal(conv(x)[rest], clean[rest])


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads an operation may use, for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def step(conv: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """Maps and the gradients by the parameters."""
    y = conv(x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(conv.parameters()))]


@pytest.mark.parametrize("channels", [48, 45])
def test_the_same_bits_with_any_threads(channels: int, threads: Callable[[int], None]) -> None:
    conv, x = layer_and_input(channels)
    first = step(conv, x)
    for count in (2, 3, 2, 9, 1):
        threads(count)
        assert all(torch.equal(a, b) for a, b in zip(first, step(conv, x), strict=True))


def test_two_threads_of_python_at_once(threads: Callable[[int], None]) -> None:
    threads(2)
    conv, x = layer_and_input()
    first = step(conv, x)

    def again(_: int) -> bool:
        torch.set_num_threads(2)
        return all(torch.equal(a, b) for a, b in zip(first, step(conv, x), strict=True))

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(again, range(6)))


def test_more_threads_than_bands_are_torchs(
    threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, x = layer_and_input()
    threads(16)
    assert takes_frequencies(conv, x, monkeypatch)
    threads(64)
    assert not takes_frequencies(conv, x, monkeypatch)


def test_large_maps_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, _ = layer_and_input()
    x = torch.randn(32, 48, 15, 70).to(memory_format=LAST)
    assert not takes_frequencies(conv, x, monkeypatch)


def test_matrices_outlive_the_cache_that_they_are_in() -> None:
    conv, x = layer_and_input()
    first = step(conv, x)
    plan.cache_clear()
    spare = [torch.randn(9, 9) for _ in range(2000)]  # where they lay
    assert all(torch.equal(a, b) for a, b in zip(first, step(conv, x), strict=True))
    del spare


def test_matrices_made_without_gradients_serve_training() -> None:
    plan.cache_clear()
    conv, x = layer_and_input()
    with torch.inference_mode():
        conv(x)
    for ours, theirs in zip(step(conv, x), direct_step(conv, x), strict=True):
        assert off(ours, theirs.double()) < 1e-5


def direct_step(conv: Conv2d, x: Tensor) -> list[Tensor]:
    """The same by torch's convolution."""
    y = nn.Conv2d.forward(conv, x)
    return [y.detach(), *torch.autograd.grad(y.square().sum(), list(conv.parameters()))]


def test_parameters_of_other_shapes_and_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = layer_and_input()
    conv.bias = nn.Parameter(torch.randn(128)[::2])
    assert not takes_frequencies(conv, x, monkeypatch)
    conv.bias = nn.Parameter(torch.zeros(1).expand(64))
    assert not takes_frequencies(conv, x, monkeypatch)
    conv.bias = None
    conv.weight = nn.Parameter(torch.randn(32, 48, 3, 3))
    assert not takes_frequencies(conv, x, monkeypatch)
    conv.weight = nn.Parameter((torch.randn(64, 1, 5, 5) / 35).expand(64, 48, 5, 5))
    assert takes_frequencies(conv, x, monkeypatch)


def test_what_is_kept_may_come_back_laid_out_otherwise() -> None:
    conv, x = layer_and_input()
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.contiguous, lambda kept: kept):
        ours = step(conv, x)
    for found, exact in zip(ours, direct_step(conv, x), strict=True):
        assert off(found, exact.double()) < 1e-5


def test_several_gradients_at_once() -> None:
    conv, x = layer_and_input()
    y = conv(x)
    g = torch.randn(2, *y.shape)
    (both,) = torch.autograd.grad(y, conv.weight, g, is_grads_batched=True, retain_graph=True)
    (first,) = torch.autograd.grad(y, conv.weight, g[0])
    assert off(both[0], first.double()) < 1e-5


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_transforms_of_functions_are_torchs() -> None:
    conv, x = layer_and_input()
    head = torch.randn(64)

    def loss(head: Tensor) -> Tensor:
        return (conv(x).mean((0, 2, 3)) * head).sum()

    torch.testing.assert_close(torch.func.grad(loss)(head), conv(x).mean((0, 2, 3)))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(conv(dual)).tangent is not None


def test_autocast_around_the_way_back_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    conv, x = layer_and_input()
    monkeypatch.setattr(module, "best_kernel", InTorch)
    first = step(conv, x)
    y = conv(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y.square().sum(), list(conv.parameters()))
    for again, before in zip(found, first[1:], strict=True):
        assert off(again, before.double()) < 1e-5


def test_a_parametrization_is_computed_once_a_call() -> None:
    calls = []

    class Counted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            calls.append(1)
            return weight

    conv, x = layer_and_input()
    nn.utils.parametrize.register_parametrization(conv, "weight", Counted())
    calls.clear()
    conv(x)
    conv(x[:2])
    assert len(calls) == 2


def test_without_its_library_torchs_operations_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__file__", "/nowhere/torch/__init__.py")
    assert isinstance(best_kernel.__wrapped__(), InTorch)


def test_the_cost_is_that_of_the_matrices() -> None:
    geometry = Geometry((27, 27), (5, 5), (2, 2))
    factors = sum(len(band.w) for band in plan(geometry).bands)
    assert geometry.periods == (29, 29)
    assert factors == 1261
    direct, spectral = cost(geometry, 1000, 96, 256, 1)
    assert direct == 1000 * 27 * 27 * 25 * 96 * 256
    assert direct > 4 * spectral
    assert cost(geometry, 1, 96, 256, 1)[1] > direct / 1000


def test_gradients_of_the_network_are_as_exact_by_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where maps are nearly even, as at the start, rounding moves maxima: in both."""
    torch.manual_seed(0)
    network = create_model("alexnet", num_classes=10, dropout=0.0, image_size=163)
    network = network.to(memory_format=LAST)  # type: ignore[call-overload]
    x, labels = torch.randn(48, 3, 163, 163).to(memory_format=LAST), torch.arange(48) % 10

    def gradients(network: nn.Module, x: Tensor) -> list[Tensor]:
        loss = F.cross_entropy(network(x), labels)
        return list(torch.autograd.grad(loss, list(network.parameters())))

    calls = []
    backward = Spectral.backward
    monkeypatch.setattr(
        Spectral, "backward", staticmethod(lambda *given: calls.append(1) or backward(*given))
    )
    ours = gradients(network, x)
    assert len(calls) == 4
    monkeypatch.setenv("ALEXNET_SPECTRAL", "0")
    theirs = gradients(network, x)
    exact = gradients(copy.deepcopy(network).double(), x.double())
    for found, direct, right in zip(ours, theirs, exact, strict=True):
        assert off(found, right) < 3 * off(direct, right) + 3e-4
