"""AlexNet's layers and parameters as the paper has them, its presets, choices and variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from alexnet.layers import (
    Conv2d,
    Dropout,
    LocallyConnected2d,
    LocalResponseNorm,
    SpatialResponseNorm,
)
from alexnet.models import AlexNet, AlexNetCifar, create_model, layer_table, model_entry

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


# name: (output, parameters); section 3.5 and figure 2.
PAPER = {
    "conv1": ((96, 55, 55), 34_944),
    "pool1": ((96, 27, 27), 0),
    "conv2": ((256, 27, 27), 307_456),
    "pool2": ((256, 13, 13), 0),
    "conv3": ((384, 13, 13), 885_120),
    "conv4": ((384, 13, 13), 663_936),
    "conv5": ((256, 13, 13), 442_624),
    "pool5": ((256, 6, 6), 0),
    "fc6": ((4096,), 37_752_832),
    "fc7": ((4096,), 16_781_312),
    "fc8": ((1000,), 4_097_000),
}
TOTALS = {
    "alexnet": 60_965_224,
    "alexnet_ungrouped": 62_378_344,
    "alexnet_owt": 61_100_840,
    # In place of the biases of the convolutions a weight and a bias a map: 1,376 more.
    "alexnet_bn": 60_965_224 + 96 + 256 + 384 + 384 + 256,
}


def on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return build(name, **arguments).eval()


@pytest.mark.parametrize("preset", ["paper", "original"])
def test_layers_are_the_papers(preset):
    network = on_meta("alexnet", preset=preset)
    x = torch.empty(1, 3, 227, 227, device="meta")
    names = [*network.feature_names]
    outputs = network.forward_intermediates(x, names, intermediates_only=True)
    shapes = {name: tuple(o.shape[1:]) for name, o in zip(names, outputs, strict=True)}
    shapes["fc8"] = tuple(network(x).shape[1:])
    for name, (shape, parameters) in PAPER.items():
        assert shapes[name] == shape, name
        layer = network.get_submodule(name)
        assert sum(p.numel() for p in layer.parameters()) == parameters, name


@pytest.mark.parametrize(("name", "total"), TOTALS.items())
def test_totals(name, total):
    assert sum(p.numel() for p in on_meta(name).parameters()) == total


def test_towers():
    groups = {
        n: m.groups
        for n, m in on_meta("alexnet").named_modules()
        if hasattr(m, "stride") and isinstance(m, nn.Conv2d)
    }
    assert groups == {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}
    assert all(
        m.groups == 1 for m in on_meta("alexnet_ungrouped").modules() if isinstance(m, nn.Conv2d)
    )


def test_units_of_the_convolutions():
    """Figure 2 has 253,440 neurons in conv1, by another input; 55x55x96 and the rest are these."""
    rows = {row.name: row for row in layer_table(on_meta("alexnet"), (3, 227, 227))}
    neurons = {n: rows[n].maps * eval_size(rows[n].size) for n in PAPER if n.startswith("conv")}
    assert neurons == {
        "conv1": 290_400,
        "conv2": 186_624,
        "conv3": 64_896,
        "conv4": 64_896,
        "conv5": 43_264,
    }


def eval_size(size: str) -> int:
    height, width = size.split("x")
    return int(height) * int(width)


def test_prose_preset():
    network = on_meta("alexnet")
    for name in ("norm1", "norm2"):
        norm = network.get_submodule(name)
        assert isinstance(norm, LocalResponseNorm)
        assert (norm.size, norm.alpha, norm.beta, norm.k) == (5, 1e-4, 0.75, 2.0)
        assert (norm.alpha_mode, norm.groups) == ("sum", 1)
    assert [name for name, _ in network.steps()][:3] == ["conv1", "norm1", "pool1"]
    assert isinstance(dict(network.steps())["conv1"][1], nn.ReLU)


def test_original_preset():
    network = on_meta("alexnet", preset="original")
    first, second = network.norm1, network.norm2
    assert isinstance(first, LocalResponseNorm)
    assert (first.alpha_mode, first.groups, first.k) == ("mean", 2, 2.0)
    assert isinstance(second[0], LocalResponseNorm)
    assert (second[0].alpha_mode, second[0].groups) == ("mean", 2)
    assert isinstance(second[1], SpatialResponseNorm)
    assert (second[1].size, second[1].alpha, second[1].beta) == (5, 0.001, 0.75)
    steps = dict(network.steps())
    assert steps["conv1"] == (network.conv1,)
    assert steps["pool1"] == (network.pool1, network.act1)
    assert steps["conv2"] == (network.conv2, network.act2)


@pytest.mark.parametrize(("preset", "deep"), [("paper", 0.01), ("original", 0.03)])
def test_start_of_the_weights(preset, deep):
    torch.manual_seed(0)
    network: Any = AlexNet(image_size=67, hidden=512, preset=preset)
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        layer = getattr(network, name)
        std = deep if name in ("conv3", "conv4", "conv5") else 0.01
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03), name
        bias = 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
        assert torch.equal(layer.bias, torch.full_like(layer.bias, bias)), name


def test_batch_norm_has_no_convolution_biases():
    network = build("alexnet_bn", image_size=67, hidden=16)
    for module in network.modules():
        assert not isinstance(module, nn.Conv2d) or module.bias is None
        assert not isinstance(module, LocalResponseNorm)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 5
    norm = dict(network.steps())["conv4"]
    assert [type(m) for m in norm] == [Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_dropout_after_in_the_paper_and_before_in_torchvision():
    def kinds(network: Any) -> list[list[type]]:
        return [[type(m) for m in modules] for _, modules in network.head_steps()]

    after, before = kinds(on_meta("alexnet")), kinds(on_meta("alexnet_owt"))
    assert after == [[nn.Linear, nn.ReLU, Dropout]] * 2
    assert before == [[Dropout, nn.Linear, nn.ReLU]] * 2
    assert on_meta("alexnet", dropout=0.3).drop6.p == 0.3


def test_features_are_after_relu_and_before_lrn():
    network = build("alexnet", image_size=67, hidden=16).eval()
    x = torch.randn(1, 3, 67, 67) * 50
    conv1, norm1, pool1 = network.forward_intermediates(
        x, ["conv1", "norm1", "pool1"], intermediates_only=True
    )
    assert torch.equal(conv1, network.conv1(x).relu())
    assert torch.equal(norm1, network.norm1(conv1))
    assert torch.equal(pool1, nn.functional.max_pool2d(norm1, 3, 2))


@pytest.mark.parametrize("pooling", ["overlapping", "plain", "average"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "scaled_tanh", "sigmoid"])
def test_choices(pooling, activation):
    arguments = {"image_size": 67, "hidden": 16, "num_classes": 3, "pooling": pooling}
    network = build("alexnet", **arguments, activation=activation).eval()
    assert network(torch.randn(1, 3, 67, 67)).shape == (1, 3)
    wanted = nn.AvgPool2d if pooling == "average" else nn.MaxPool2d
    assert isinstance(network.pool1, wanted)


@pytest.mark.parametrize(
    ("pooling", "stem_padding", "least"),
    [("overlapping", 0, 67), ("plain", 0, 39), ("plain", 2, 35)],
)
def test_least_size(pooling, stem_padding, least):
    choices = {"pooling": pooling, "stem_padding": stem_padding, "hidden": 4}
    AlexNet(image_size=least, **choices)
    with pytest.raises(ValueError, match=f"image_size={least - 1} .* at least {least} pixels"):
        AlexNet(image_size=least - 1, **choices)


def test_owt_is_torchvision_s_alexnet_layer_by_layer():
    ours = [tuple(p.shape) for p in on_meta("alexnet_owt").parameters()]
    with torch.device("meta"):
        theirs = [tuple(p.shape) for p in torchvision.models.alexnet().parameters()]
    assert ours == theirs


def test_published_pixels_are_raw_and_centered():
    spec = model_entry("alexnet").spec
    assert (spec.size, spec.resize, spec.scale, spec.std) == (227, 256, 1.0, (1.0, 1.0, 1.0))


def test_cifar_network_is_cuda_convnet_s():
    network = on_meta("alexnet_cifar")
    counts = {n: sum(p.numel() for p in m.parameters()) for n, m in network.named_children()}
    assert {n: c for n, c in counts.items() if c} == {
        "conv1": 64 * 3 * 25 + 64,
        "conv2": 64 * 64 * 25 + 64,
        "local3": 64 * (64 * 64 * 9 + 64),
        "local4": 64 * (32 * 64 * 9 + 32),
        "fc5": 2048 * 10 + 10,
    }
    assert isinstance(network.local3, LocallyConnected2d)
    norm = network.norm1
    assert (norm.size, norm.alpha, norm.beta, norm.k) == (9, 0.001, 0.75, 1.0)
    assert norm.alpha_mode == "mean"
    x = torch.empty(1, 3, 32, 32, device="meta")
    maps = network.forward_intermediates(x, ["pool1", "pool2", "local4"], intermediates_only=True)
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 16), (64, 8, 8), (32, 8, 8)]


@pytest.mark.parametrize("pooling", ["overlapping", "plain", "average"])
@pytest.mark.parametrize("norm", ["lrn", "batch", "none"])
@pytest.mark.parametrize("size", [8, 27, 33, 34])
def test_cifar_network_takes_any_size(pooling, norm, size):
    network = AlexNetCifar(image_size=size, pooling=pooling, norm=norm).eval()
    assert network(torch.randn(2, 3, size, size)).shape == (2, 10)
