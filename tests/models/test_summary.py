"""The layer table: its sums are the published figures, its rows the paper's."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from alexnet.models import count_macs, count_parameters, create_model, layer_table, model_entry

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


MACS = {
    "lenet1989": 63_660,
    "lenet5": 326_520,
    "lenet5_dense": 416_520,
    "alexnet": 724_406_816,
    "alexnet_ungrouped": 1_135_256_096,
    "alexnet_bn": 724_406_816,
    "alexnet_owt": 714_188_480,
    "alexnet_cifar": 1024 * 64 * 75 + 256 * 64 * 1600 + 64 * 64 * 576 + 64 * 32 * 576 + 20_480,
}


def on_meta(name: str, **arguments: Any) -> Any:
    with torch.device("meta"):
        return build(name, **arguments)


@pytest.mark.parametrize(("name", "macs"), MACS.items())
def test_sums(name, macs):
    network, spec = on_meta(name), model_entry(name).spec
    rows = layer_table(network, spec)
    assert count_macs(network, spec) == sum(row.macs for row in rows) == macs
    trainable, fixed = count_parameters(network)
    assert sum(row.parameters for row in rows) == trainable
    assert fixed == (840 if name == "lenet5" else 0)
    json.dumps([row.to_dict() for row in rows])


def test_alexnet_rows_are_the_lecture_s():
    rows = {row.name: row for row in layer_table(on_meta("alexnet"), (3, 227, 227))}
    assert " ".join(rows) == (
        "conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 fc6 fc7 fc8"
    )
    conv2 = rows["conv2"]
    assert (conv2.kind, conv2.maps, conv2.size) == ("convolution", 256, "27x27")
    assert (conv2.kernel, conv2.stride, conv2.padding, conv2.groups) == ("5x5", 1, 2, 2)
    assert (conv2.activation, conv2.parameters, conv2.macs) == ("ReLU", 307_456, 223_948_800)
    pool1 = rows["pool1"]
    assert (pool1.kind, pool1.kernel, pool1.stride, pool1.size) == (
        "max pooling",
        "3x3",
        2,
        "27x27",
    )
    assert rows["norm1"].kind == "local response normalization"
    assert (rows["fc6"].maps, rows["fc6"].size, rows["fc6"].kernel) == (4096, "1x1", "")
    assert rows["fc8"].activation == ""


def test_lenet_rows():
    rows = {row.name: row for row in layer_table(on_meta("lenet5"), (1, 32, 32))}
    assert list(rows) == ["c1", "s2", "c3", "s4", "c5", "f6", "output"]
    assert (rows["c3"].kind, rows["c3"].macs) == ("sparse convolution", 150_000)
    assert (rows["s2"].kind, rows["s2"].kernel, rows["s2"].stride) == (
        "trainable sub-sampling",
        "2x2",
        2,
    )
    assert (rows["output"].kind, rows["output"].macs) == ("radial basis functions", 840)
    assert rows["f6"].activation == "1.7159 tanh(2x/3)"
    old = layer_table(on_meta("lenet1989"), (1, 16, 16))
    assert [(r.name, r.parameters, r.padding) for r in old] == [
        ("h1", 1_068, 2),
        ("h2", 2_592, 2),
        ("h3", 5_790, 0),
        ("output", 310, 0),
    ]


@pytest.mark.parametrize(
    ("name", "billion_macs", "parameters"),
    [
        ("torchvision:vgg11", 7.609, 132_863_336),  # the figures that torchvision publishes
        ("torchvision:googlenet", 1.498, 6_624_904),
        ("torchvision:vit_b_16", None, 86_567_656),
        ("torchvision:alexnet", 0.714, 61_100_840),
        ("timm:resnet18", 1.814, 11_689_512),
        ("timm:vit_tiny_patch16_224", None, 5_717_416),
    ],
)
def test_other_libraries(name, billion_macs, parameters):
    network, spec = on_meta(name), model_entry(name).spec
    rows = layer_table(network, spec)
    assert sum(row.parameters for row in rows) == count_parameters(network)[0] == parameters
    assert billion_macs is None or round(count_macs(network, spec) / 1e9, 3) == billion_macs


def test_network_is_left_alone():
    network = build("lenet5")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    layer_table(network, model_entry("lenet5").spec)
    assert network.training
    assert not any(m._forward_hooks for m in network.modules())
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())
    assert all(p.requires_grad for p in network.parameters())


def test_frozen_parameters_are_fixed_and_shared_ones_counted_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.scale = nn.Parameter(torch.ones(7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.conv(x))

    network = Twice()
    rows = layer_table(network, (3, 4, 4))
    assert [(r.name, r.parameters, r.macs) for r in rows] == [
        ("conv", 12, 144),
        ("conv", 0, 144),
        ("(others)", 7, 0),
    ]
    network.conv.requires_grad_(False)
    assert count_parameters(network) == (7, 12)
