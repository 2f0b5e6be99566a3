"""The order of pictures and the draws of augmentation: pure, well mixed, the same in any batch."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alexnet.chance import MIX, hash64, stream_key
from alexnet.data.order import draws, epoch_batches, epoch_order, normal

NUMBERS = st.integers(min_value=-(2**70), max_value=2**70)


def splitmix64(state: int) -> int:
    """The output for a state that was advanced already, in Python's whole numbers."""
    mask = (1 << 64) - 1
    z = state & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_hash_is_splitmix64():
    # The first outputs of SplitMix64 seeded with 1234567, as published with its reference code
    # in C (S. Vigna, xoshiro.di.unimi.it/splitmix64.c; the list is that of Rosetta Code).
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    ours = hash64(1234567, torch.arange(1, 6)).tolist()
    assert [value % 2**64 for value in ours] == published


@given(st.integers(0, 2**64 - 1), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_hash_equals_whole_number_arithmetic(key, counters):
    expected = [splitmix64(key + value * 0x9E3779B97F4A7C15) for value in counters]
    ours = hash64(key, torch.tensor(counters, dtype=torch.int64)).tolist()
    assert [value % 2**64 for value in ours] == expected


@given(st.integers(0, 300), NUMBERS, NUMBERS)
def test_order_is_a_permutation_that_seed_and_epoch_decide(count, seed, epoch):
    order = epoch_order(count, seed, epoch)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, epoch_order(count, seed, epoch))


def test_orders_of_other_seeds_and_epochs_differ():
    orders = {
        tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(9) for epoch in range(9)
    }
    assert len(orders) == 81


def test_order_has_no_bias():
    # Each picture in each place about equally often: chi-square over 10 x 10 cells, 81 degrees of
    # freedom; 140 is beyond the 0.9999 quantile.
    count, rounds = 10, 3000
    places = torch.zeros(count, count)
    for epoch in range(rounds):
        places[epoch_order(count, 0, epoch), torch.arange(count)] += 1
    expected = rounds / count
    assert ((places - expected) ** 2 / expected).sum() < 140


def test_the_order_is_fixed_across_versions():
    assert epoch_order(8, seed=0, epoch=0).tolist() == [7, 0, 3, 2, 1, 4, 5, 6]


@given(st.integers(0, 200), st.integers(1, 64), st.integers(0, 9), st.booleans())
def test_batches_cover_the_epoch_and_resume(count, batch_size, first, drop_last):
    whole = list(epoch_batches(count, batch_size, 3, 5, drop_last=drop_last))
    resumed = list(epoch_batches(count, batch_size, 3, 5, first=first, drop_last=drop_last))
    assert [batch.tolist() for batch in resumed] == [batch.tolist() for batch in whole[first:]]
    seen = torch.cat(whole).tolist() if whole else []
    assert seen == epoch_order(count, 3, 5).tolist()[: len(seen)]
    if drop_last and count >= batch_size:
        assert {len(batch) for batch in whole} == {batch_size}
        assert len(whole) == count // batch_size
    else:
        assert len(seen) == count


@pytest.mark.parametrize(("batch_size", "first"), [(0, 0), (-1, 0), (4, -1)])
def test_wrong_batches_are_refused(batch_size, first):
    with pytest.raises(ValueError, match="batch_size"):
        next(epoch_batches(9, batch_size, 0, 0, first=first, drop_last=False))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=40), st.integers(1, 9), NUMBERS)
def test_a_draw_depends_on_its_own_picture_alone(indices, count, seed):
    together = draws(seed, 2, torch.tensor(indices), count)
    assert together.shape == (len(indices), count)
    for row, index in enumerate(indices):
        assert torch.equal(together[row], draws(seed, 2, torch.tensor([index]), count)[0])
    assert torch.equal(together, draws(seed, 2, torch.tensor(indices), count + 5)[:, :count])


def test_draws_are_uniform():
    numbers = draws(0, 0, torch.arange(20_000), 10)
    assert numbers.dtype == torch.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 2e5))
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.001)
    for column in numbers.T:  # chi-square, 99 degrees of freedom; 0.9999 quantile: 161
        counts = torch.histc(column, 100, 0, 1)
        assert ((counts - 200) ** 2 / 200).sum() < 161
    low = (numbers.flatten() * 2**24).long() & 0xFF  # the last bits too
    counts = torch.bincount(low, minlength=256).float()
    assert ((counts - 2e5 / 256) ** 2 / (2e5 / 256)).sum() < 350


def test_neighbors_are_uncorrelated():
    # Between pictures, draws, epochs and seeds next to one another: 5 standard errors.
    count = 50_000
    first = draws(0, 0, torch.arange(count), 3)
    pairs = {
        "pictures": (first[:-1, 0], first[1:, 0]),
        "draws": (first[:, 0], first[:, 1]),
        "draw and next picture": (first[1:, 0], first[:-1, 1]),
        "epochs": (first[:, 0], draws(0, 1, torch.arange(count), 1)[:, 0]),
        "streams": (first[:, 0], draws(0, 0, torch.arange(count), 1, MIX)[:, 0]),
        "seeds": (first[:, 0], draws(1, 0, torch.arange(count), 1)[:, 0]),
        "seed and epoch exchanged": (
            draws(1, 2, torch.arange(count), 1)[:, 0],
            draws(2, 1, torch.arange(count), 1)[:, 0],
        ),
    }
    for name, pair in pairs.items():
        correlation = torch.corrcoef(torch.stack(pair).double())[0, 1].abs()
        assert correlation < 5 / math.sqrt(count), name


def test_pairs_of_draws_fill_the_square():
    numbers = draws(7, 3, torch.arange(40_000), 2)
    cells = (numbers * 20).long()
    counts = torch.bincount(cells[:, 0] * 20 + cells[:, 1], minlength=400).float()
    assert ((counts - 100) ** 2 / 100).sum() < 510  # 399 degrees of freedom; 0.9998 quantile


def test_normal_is_the_quantile_and_never_infinite():
    uniform = torch.cat((torch.arange(0, 2**24, 997), torch.tensor([2**24 - 1]))) / 2**24
    expected = stats.norm.ppf(uniform.double().numpy() + 2.0**-25)
    assert (normal(uniform).double() - torch.from_numpy(expected)).abs().max() < 2e-6
    assert torch.equal(normal(uniform[:1]), -normal(uniform[-1:]))


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.lists(NUMBERS, min_size=1, max_size=4))
def test_keys_of_different_streams_differ(first, second):
    keys = stream_key(*first), stream_key(*second)
    assert all(0 <= key < 2**64 for key in keys)
    assert (keys[0] == keys[1]) == (first == second)
