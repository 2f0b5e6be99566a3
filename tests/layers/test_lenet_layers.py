"""LeNet's own layers, each against a second way to compute it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from alexnet.layers import (
    EuclideanRBF,
    ScaledTanh,
    SparseConv2d,
    TrainableSubsampling,
    UnitBias,
    check_at_least,
    check_choice,
    check_probability,
    digit_codes,
    map_loss,
    random_codes,
)


def test_scaled_tanh_keeps_one():
    x = torch.tensor([1.0, -1.0, 0.0])
    torch.testing.assert_close(ScaledTanh()(x), x, rtol=0, atol=1e-4)


def test_subsampling_starts_as_average_and_learns_a_coefficient():
    layer, x = TrainableSubsampling(3), torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(layer(x), nn.functional.avg_pool2d(x, 2))
    assert sum(p.numel() for p in layer.parameters()) == 6
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        layer.bias.copy_(torch.tensor([0.0, 0.5, 1.0]))
    block = x[1, 2, 2:4, 4:6].sum()
    torch.testing.assert_close(layer(x)[1, 2, 1, 2], -block + 1.0)


@settings(max_examples=30, deadline=None)
@given(data=st.data(), stride=st.integers(1, 2), bias=st.booleans())
def test_sparse_convolution_is_dense_with_zeros(data, stride, bias):
    inputs = data.draw(st.integers(1, 5))
    rows = st.lists(st.integers(0, inputs - 1), min_size=1, max_size=inputs, unique=True)
    table = data.draw(st.lists(rows, min_size=1, max_size=4))
    layer = SparseConv2d(inputs, table, 3, stride, bias=bias).double()
    dense = nn.Conv2d(inputs, len(table), 3, stride, bias=bias).double()
    dense.weight.data.zero_()
    number = 0
    for output, sources in enumerate(table):
        for source in sources:
            dense.weight.data[output, source] = layer.weight.data[number]
            number += 1
    if layer.bias is not None and dense.bias is not None:
        layer.bias.data.normal_()
        dense.bias.data.copy_(layer.bias.data)
    assert layer.connections == number
    x = torch.randn(2, inputs, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), dense(x))


def test_sparse_convolution_starts_within_its_fan_in():
    torch.manual_seed(0)
    layer = SparseConv2d(8, [[0], list(range(8))] * 20, 5)
    one, eight = layer.weight[layer.targets % 2 == 0], layer.weight[layer.targets % 2 == 1]
    assert 0.9 * 2.4 / 25 < one.abs().max() <= 2.4 / 25
    assert 0.9 * 2.4 / 200 < eight.abs().max() <= 2.4 / 200


@pytest.mark.parametrize("table", [[[0, 2]], [[0, 0]], [[0], []]])
def test_sparse_convolution_refuses_a_wrong_table(table):
    with pytest.raises(ValueError, match=r"the table"):
        SparseConv2d(2, table, 3)


def test_unit_bias_is_one_a_unit():
    layer = UnitBias(2, 3)
    layer.bias.data.copy_(torch.arange(18.0).view(2, 3, 3))
    assert torch.equal(layer(torch.zeros(1, 2, 3, 3))[0], layer.bias)


def test_rbf_is_the_negative_squared_distance():
    codes = random_codes(4, 5)
    x = torch.randn(3, 5)
    wanted = -torch.cdist(x, codes).square()
    torch.testing.assert_close(EuclideanRBF(codes)(x), wanted, rtol=1e-4, atol=1e-4)
    assert EuclideanRBF(codes)(codes).argmax(1).tolist() == [0, 1, 2, 3]
    assert EuclideanRBF(codes).state_dict().keys() == {"codes"}
    assert EuclideanRBF(codes).double()(x.double()).dtype == torch.float64


def test_map_loss_is_equation_9():
    logits = -torch.tensor([[3.0, 5.0], [2.0, 0.5]])
    rows = [
        3.0 + math.log(math.exp(-0.1) + math.exp(-3.0) + math.exp(-5.0)),
        0.5 + math.log(math.exp(-0.1) + math.exp(-2.0) + math.exp(-0.5)),
    ]
    labels = torch.tensor([0, 1])
    wanted = torch.tensor(sum(rows) / 2)
    torch.testing.assert_close(map_loss(logits, labels), wanted)
    torch.testing.assert_close(map_loss(logits, torch.eye(2)[labels]), wanted)


def test_digit_codes():
    codes = digit_codes()
    assert codes.shape == (10, 84)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    apart = (codes[:, None] != codes).sum(2)
    assert apart[~torch.eye(10, dtype=torch.bool)].min() >= 5
    one = codes[1].view(12, 7)
    assert one[:, 3:5].mean() > one[:, :2].mean()


def test_random_codes_are_fixed_and_differ():
    assert torch.equal(random_codes(100), random_codes(100))
    assert not torch.equal(random_codes(100), random_codes(100, seed=1))
    assert len(random_codes(100).unique(dim=0)) == 100


def test_checks_name_the_argument_and_the_fix():
    with pytest.raises(ValueError, match=r"norm='lnr': choose from lrn, none"):
        check_choice("norm", "lnr", ("lrn", "none"))
    wrong: Any
    for wrong in (0, -1, 2.5, "3", True):
        with pytest.raises(ValueError, match=r"num_classes=.* at least 1"):
            check_at_least(1, num_classes=wrong)
    for wrong in (1, -0.1, "x"):
        with pytest.raises(ValueError, match=r"dropout=.*a probability"):
            check_probability(dropout=wrong)
