from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.training.share import share_of


@settings(deadline=None)
@given(size=st.integers(1, 70), count=st.integers(2, 9), seed=st.integers(0, 9))
def test_all_shares_together_are_the_batch_once_and_in_order(
    size: int, count: int, seed: int
) -> None:
    batch = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:size]
    shares = [share_of(batch, rank, count) for rank in range(count)]
    assert torch.equal(torch.cat([one.indices[: one.counted] for one in shares]), batch)
    assert {one.total for one in shares} == {size}
    # As many rows in each, of which the last ones may only fill up.
    (rows,) = {len(one.indices) for one in shares}
    assert rows * count - size < 2 * count
    for one in shares:
        assert 0 <= one.counted <= rows
        assert set(one.indices[one.counted :].tolist()) <= {int(batch[0])}


@settings(deadline=None)
@given(size=st.integers(1, 70), count=st.integers(2, 9))
def test_shares_begin_at_even_places_one_after_another(size: int, count: int) -> None:
    shares = [share_of(torch.arange(size), rank, count) for rank in range(count)]
    assert all(one.first % 2 == 0 for one in shares)
    places = torch.cat([one.rows for one in shares])
    assert torch.equal(places, torch.arange(len(places)))
    for one in shares:
        assert torch.equal(one.rows[: one.counted], one.indices[: one.counted])


@settings(deadline=None)
@given(size=st.integers(1, 70), count=st.integers(1, 9), together=st.integers(1, 9))
def test_pictures_follow_the_leader_that_they_have_in_the_whole_batch(
    size: int, count: int, together: int
) -> None:
    batch = torch.arange(size).flip(0)
    shares = [share_of(batch, rank, count, together) for rank in range(count)]
    leaders = torch.cat([one.leaders[: one.counted] for one in shares])
    assert torch.equal(leaders, batch[torch.arange(size) // together * together])


@settings(deadline=None)
@given(st.integers(1, 70))
def test_one_process_takes_the_batch_as_it_is(size: int) -> None:
    batch = torch.arange(size).flip(0)
    share = share_of(batch, 0, 1)
    assert torch.equal(share.indices, batch)
    assert (share.first, share.counted, share.total) == (0, size, size)
    assert torch.equal(share.rows, torch.arange(size))


@pytest.mark.parametrize(
    ("rank", "indices", "counted"), [(0, [5, 6], 2), (1, [7, 5], 1), (2, [5, 5], 0)]
)
def test_three_pictures_for_three_processes_stay_in_pairs(
    rank: int, indices: list[int], counted: int
) -> None:
    share = share_of(torch.tensor([5, 6, 7]), rank, 3)
    assert share.indices.tolist() == indices
    assert (share.first, share.counted, share.total) == (2 * rank, counted, 3)
