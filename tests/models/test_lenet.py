"""LeNet's layers, tables, parameters and connections as the papers have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from alexnet.models import LeNet5, LeNet1989, create_model
from alexnet.models.lenet import C3_TABLE, H2_TABLE

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


# name: (output, parameters, connections); section II.B of 1998.
LENET5 = {
    "c1": ((6, 28, 28), 156, 122_304),
    "s2": ((6, 14, 14), 12, 5_880),
    "c3": ((16, 10, 10), 1_516, 151_600),
    "s4": ((16, 5, 5), 32, 2_000),
    "c5": ((120, 1, 1), 48_120, 48_120),
    "f6": ((84,), 10_164, 10_164),
}
# Table I: a row an S2 map, X where the C3 map of the column reads it.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""


def test_lenet5_layers_are_the_papers():
    network = LeNet5()
    x = torch.randn(1, 1, 32, 32)
    outputs = network.forward_intermediates(x, [*LENET5], intermediates_only=True)
    for (name, (shape, parameters, _)), output in zip(LENET5.items(), outputs, strict=True):
        assert tuple(output.shape[1:]) == shape, name
        layer = network.get_submodule(name)
        assert sum(p.numel() for p in layer.parameters()) == parameters, name
    assert sum(p.numel() for p in network.parameters()) == 60_000
    assert network.output.codes.numel() == 840


def test_lenet5_connections():
    """'LeNet-5 has 340,908 connections' without the output's: a weight or bias at each position."""
    network = LeNet5()
    counted = {}
    for name, (shape, parameters, _) in LENET5.items():
        positions = shape[1] * shape[2] if len(shape) == 3 else 1
        if name in ("s2", "s4"):  # four inputs share a coefficient, and a bias
            counted[name] = shape[0] * positions * 5
        else:
            layer = network.get_submodule(name)
            counted[name] = sum(p.numel() for p in layer.parameters()) * positions
            assert parameters == sum(p.numel() for p in layer.parameters())
    assert counted == {name: connections for name, (_, _, connections) in LENET5.items()}
    assert sum(counted.values()) + 840 == 340_908


def test_c3_reads_table_i():
    rows = TABLE_I.split()
    columns = tuple(tuple(s for s in range(6) if rows[s][c] == "X") for c in range(16))
    assert columns == C3_TABLE
    assert sum(map(len, C3_TABLE)) == 60
    assert all(row.count("X") == 10 for row in rows)


def test_c3_ignores_the_maps_it_does_not_read():
    network = LeNet5().double()
    s2 = torch.randn(1, 6, 14, 14, dtype=torch.float64)
    before = network.c3(s2)
    s2[:, 3] += 1.0
    changed = ((network.c3(s2) - before).abs().amax((0, 2, 3)) > 1e-9).tolist()
    assert changed == [3 in sources for sources in C3_TABLE]


def test_lenet5_weights_start_within_their_fan_in():
    torch.manual_seed(0)
    network = LeNet5()
    for name, fan_in in (("c1", 25), ("c5", 400), ("f6", 120)):
        weight = getattr(network, name).weight
        assert 0.9 * 2.4 / fan_in < weight.abs().max() <= 2.4 / fan_in, name
    assert torch.equal(network.f6.bias, torch.zeros(84))


def test_lenet5_other_classes_get_fixed_random_codes():
    one, two = LeNet5(num_classes=7), LeNet5(num_classes=7)
    assert torch.equal(one.output.codes, two.output.codes)
    assert one.output.codes.shape == (7, 84)
    network = LeNet5(num_classes=7)
    network.reset_classifier(10)
    assert torch.equal(network.output.codes, LeNet5().output.codes)


def test_lenet5_logits_are_distances():
    network = LeNet5()
    x = torch.randn(3, 1, 32, 32)
    hidden = network.forward_head(network.forward_features(x), pre_logits=True)
    wanted = -torch.stack([(hidden - code).square().sum(1) for code in network.output.codes], 1)
    torch.testing.assert_close(network(x), wanted)


def test_dense_form():
    network = build("lenet5_dense")
    assert sum(p.numel() for p in network.parameters()) == 61_706
    assert sum(p.numel() for p in network.c3.parameters()) == 2_416
    assert build("lenet5_dense", pooling="max", dropout=0.2).drop6.p == 0.2
    with pytest.raises(ValueError, match=r"pooling='median': choose from average, max"):
        build("lenet5_dense", pooling="median")
    with pytest.raises(ValueError, match=r"dropout=1.5"):
        build("lenet5_dense", dropout=1.5)


def test_lenet1989_layers_are_the_papers():
    network = LeNet1989()
    h1, h2, h3 = network.forward_intermediates(
        torch.randn(1, 1, 16, 16), ["h1", "h2", "h3"], intermediates_only=True
    )
    assert (h1.shape[1:], h2.shape[1:], h3.shape[1:]) == ((12, 8, 8), (12, 4, 4), (30,))
    counts = [
        sum(p.numel() for m in modules for p in m.parameters())
        for _, modules in (*network.steps(), *network.head_steps(), ("", (network.output,)))
    ]
    assert counts == [1_068, 2_592, 5_790, 310]
    assert sum(counts) == sum(p.numel() for p in network.parameters()) == 9_760


def test_lenet1989_connections():
    """Section 3.3: 1,256 units, 64,660 connections; 25 weights and a bias a unit of H1."""
    h1, h2 = 12 * 8 * 8 * (25 + 1), 12 * 4 * 4 * (8 * 25 + 1)
    assert (h1, h2) == (19_968, 38_592)
    network = LeNet1989()
    assert h1 == network.h1.weight[0].numel() * 768 + network.bias1.bias.numel()
    assert h2 == network.h2.weight.numel() * 16 + network.bias2.bias.numel()
    linear = sum(p.numel() for m in (network.h3, network.output) for p in m.parameters())
    assert h1 + h2 + linear == 64_660


def test_h2_table_reads_eight_maps_evenly():
    assert [len(set(sources)) for sources in H2_TABLE] == [8] * 12
    assert [sum(source in sources for sources in H2_TABLE) for source in range(12)] == [8] * 12


def test_lenet1989_sees_background_beyond_the_border():
    network = LeNet1989().double()
    background = torch.full((1, 1, 16, 16), -1.0, dtype=torch.float64)
    (h1,) = network.forward_intermediates(background, "h1", intermediates_only=True)
    torch.testing.assert_close(h1, h1[:, :, :1, :1].expand_as(h1))


def test_lenet1989_loss_is_the_squared_error_of_squashed_outputs():
    network = LeNet1989(num_classes=2)
    logits = torch.tensor([[100.0, -100.0], [0.0, 0.0]])
    wanted = ((1.7159 - 1) ** 2 * 2 + 2) / 2
    torch.testing.assert_close(network.loss(logits, torch.tensor([0, 1])), torch.tensor(wanted))
