from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from alexnet.chance import stream_key
from alexnet.layers import Dropout, number_masks
from alexnet.models import create_model

KEY = stream_key(1, 2, 3)


def mask(
    rows: Tensor | list[int],
    units: int = 64,
    *,
    key: int = KEY,
    p: float = 0.5,
    first_unit: int = 0,
) -> Tensor:
    """Which units of these pictures are left, ``[N, units]``."""
    layer = Dropout(p)
    layer.first_unit = first_unit
    layer.number(key, torch.as_tensor(rows))
    return layer(torch.ones(len(rows), units)) != 0


def test_a_mask_depends_on_the_key_and_the_row_alone() -> None:
    rows = torch.tensor([3, 0, 7, 100_000])
    torch.manual_seed(0)
    whole = mask(rows)
    torch.manual_seed(1)
    assert torch.equal(mask(rows), whole)
    assert torch.equal(mask(rows.flip(0)), whole.flip(0))  # not on the order ...
    assert torch.equal(mask([9, 7]), torch.stack([mask([9])[0], whole[2]]))  # ... or the company
    assert torch.equal(mask([5, 5])[0], mask([5, 5])[1])
    assert not torch.equal(mask(rows, key=stream_key(1, 2, 4)), whole)
    assert len({tuple(row.tolist()) for row in whole}) == 4


def test_numbered_masks_draw_nothing_from_pytorch_s_generator() -> None:
    before = torch.get_rng_state()
    mask([1, 2, 3])
    assert torch.equal(torch.get_rng_state(), before)


@settings(deadline=None)
@given(
    size=st.integers(1, 12), cut=st.integers(0, 12), units=st.integers(1, 40),
    unit=st.integers(0, 40),
)  # fmt: skip
def test_masks_of_parts_put_together_are_the_whole_mask(
    size: int, cut: int, units: int, unit: int
) -> None:
    rows, cut, unit = torch.arange(size) * 3, min(cut, size), min(unit, units)
    whole = mask(rows, units)
    over_rows = [mask(part, units) for part in (rows[:cut], rows[cut:]) if len(part)]
    assert torch.equal(torch.cat(over_rows), whole)
    over_units = [
        mask(rows, count, first_unit=first)
        for first, count in ((0, unit), (unit, units - unit))
        if count
    ]
    assert torch.equal(torch.cat(over_units, 1), whole)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_rate_is_p_within_sampling_error(p: float) -> None:
    rows, units = 400, 500
    dropped = ~mask(torch.arange(rows), units, p=p)
    # Five standard errors, of all units and of each picture and each unit.
    for share, count in ((dropped.float().mean(), rows * units), (dropped[0].float().mean(), 500)):
        assert abs(share.item() - p) < 5 * math.sqrt(p * (1 - p) / count)
    for dim, count in ((0, rows), (1, units)):
        shares = dropped.float().mean(dim)
        assert (shares - p).abs().max() < 5 * math.sqrt(p * (1 - p) / count)


def test_units_and_pictures_are_dropped_independently_of_their_neighbors() -> None:
    kept = mask(torch.arange(400), 500).float() - 0.5
    for one, other in ((kept[:, :-1], kept[:, 1:]), (kept[:-1], kept[1:])):
        correlation = 4 * (one * other).mean()
        assert abs(correlation.item()) < 5 / math.sqrt(one.numel())


@pytest.mark.parametrize("numbered", [True, False])
def test_left_units_are_scaled_while_training_or_all_units_at_the_test(numbered: bool) -> None:
    x = torch.rand(400, 500, generator=torch.Generator().manual_seed(0)) + 0.5
    torch.manual_seed(0)
    for scaled_at, left, at_test in (("training", 1 / 0.7, 1.0), ("test", 1.0, 0.7)):
        layer = Dropout(0.3, scaled_at)  # type: ignore[arg-type]
        if numbered:
            layer.number(KEY, torch.arange(400))
        y = layer(x)
        kept = y != 0
        torch.testing.assert_close(y[kept], (x * left)[kept])
        assert abs(kept.float().mean().item() - 0.7) < 5 * math.sqrt(0.21 / x.numel())
        layer.eval()
        torch.testing.assert_close(layer(x), x * at_test)
        # What the next layer reads has one expectation, while training and at the test.
        assert y.mean().item() == pytest.approx(layer(x).mean().item(), rel=0.01)


@pytest.mark.parametrize(("scaled_at", "left"), [("training", 4.0), ("test", 1.0)])
def test_the_gradient_is_the_mask(scaled_at: Any, left: float) -> None:
    x = torch.randn(8, 100, dtype=torch.float64, requires_grad=True)
    layer = Dropout(0.75, scaled_at)
    layer.number(KEY, torch.arange(8))
    layer(x).sum().backward()
    kept = mask(torch.arange(8), 100, p=0.75)
    assert x.grad is not None
    torch.testing.assert_close(x.grad, kept.double() * left, rtol=0, atol=0)


def test_without_numbers_it_draws_as_pytorch_s_does() -> None:
    x = torch.randn(50, 60)
    torch.manual_seed(3)
    theirs = nn.Dropout(0.5)(x)
    torch.manual_seed(3)
    layer = Dropout(0.5)
    assert torch.equal(layer(x), theirs)
    assert not torch.equal(layer(x), theirs)  # the generator went on
    layer.number(KEY, torch.arange(50))
    numbered = layer(x)
    assert torch.equal(layer(x), numbered)
    layer.number(None, None)
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("scaled_at", ["training", "test"])
@pytest.mark.parametrize("numbered", [True, False])
def test_dropping_nothing_is_the_identity(scaled_at: Any, numbered: bool) -> None:
    x = torch.randn(5, 7)
    layer = Dropout(0.0, scaled_at)
    if numbered:
        layer.number(KEY, torch.arange(5))
    before = torch.get_rng_state()
    assert torch.equal(layer(x), x)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_units_of_maps_and_any_precision_are_dropped_alike(dtype: torch.dtype) -> None:
    layer = Dropout(0.5)
    layer.number(KEY, torch.arange(4))
    maps = layer(torch.ones(4, 3, 5, 5, dtype=dtype))
    assert maps.dtype == dtype
    assert torch.equal(maps.flatten(1) != 0, mask(torch.arange(4), 75))


def test_each_layer_step_and_seed_has_masks_of_its_own() -> None:
    network = create_model("alexnet", image_size=67, hidden=64, num_classes=3)
    rows = torch.arange(6)
    seen = set()
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        number_masks(network, seed, step, rows)
        for name in ("drop6", "drop7"):
            kept = network.get_submodule(name)(torch.ones(6, 64)) != 0
            seen.add(tuple(kept.flatten().tolist()))
    assert len(seen) == 6
    number_masks(network, 0, 1, rows[2:])  # another process's share of the same step
    part = network.get_submodule("drop7")(torch.ones(4, 64)) != 0
    number_masks(network, 0, 1, rows)
    assert torch.equal(part, (network.get_submodule("drop7")(torch.ones(6, 64)) != 0)[2:])


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_a_probability_out_of_range(p: float) -> None:
    with pytest.raises(ValueError, match="dropout="):
        Dropout(p)


def test_an_unknown_place_of_the_scale() -> None:
    with pytest.raises(ValueError, match="dropout_scaled_at"):
        Dropout(0.5, "never")  # type: ignore[arg-type]


def test_it_prints_what_it_is() -> None:
    assert str(Dropout(0.25, "test")) == "Dropout(p=0.25, scaled_at='test')"
