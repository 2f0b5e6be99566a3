"""Stratified splits: their promises as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.data.split import stratified_folds, stratified_split

LABELS = st.lists(st.integers(0, 9), max_size=300)
FRACTIONS = st.floats(0, 1)
SEEDS = st.integers(0, 2**64)


@given(LABELS, FRACTIONS, SEEDS)
def test_parts_are_disjoint_and_whole(labels, fraction, seed):
    kept, held_out = stratified_split(labels, fraction, seed)
    assert sorted([*kept, *held_out]) == list(range(len(labels)))
    assert np.all(np.diff(kept) > 0)
    assert np.all(np.diff(held_out) > 0)


@given(LABELS, FRACTIONS, SEEDS)
def test_every_class_keeps_its_share_and_a_picture_in_training(labels, fraction, seed):
    _, held_out = stratified_split(labels, fraction, seed)
    values = np.array(labels, dtype=int)
    reachable = 0
    for value in set(labels):
        size = int((values == value).sum())
        out = int((values[held_out] == value).sum())
        assert out <= size - 1
        assert out < fraction * size + 1
        assert out > fraction * size - 1 or out == size - 1
        reachable += min(int(np.ceil(fraction * size - 1e-9)), size - 1)
    # The total is exact wherever the classes can give it.
    total = fraction * len(labels)
    assert len(held_out) in (round(total), round(total - 1e-7), round(total + 1e-7), reachable)


@given(LABELS, FRACTIONS, SEEDS)
def test_seed_decides(labels, fraction, seed):
    first, again = (stratified_split(labels, fraction, seed) for _ in range(2))
    assert [part.tolist() for part in first] == [part.tolist() for part in again]


def test_other_seeds_choose_other_pictures_all_equally_often():
    labels = np.arange(100) % 2
    counts = np.zeros(100)
    for seed in range(2000):
        counts[stratified_split(labels, 0.2, seed)[1]] += 1
    assert counts.min() > 300  # 400 expected, standard deviation 18
    assert counts.max() < 500


def test_balanced_classes_stay_balanced():
    labels = np.arange(60_000) % 10
    _, held_out = stratified_split(labels, 0.1, 0)
    assert np.bincount(labels[held_out]).tolist() == [600] * 10


def test_many_small_classes_still_give_a_part():
    # 0.1 of 2 rounds to none a class; the part is a tenth of the whole all the same.
    labels = np.repeat(np.arange(50), 2)
    _, held_out = stratified_split(labels, 0.1, 0)
    assert len(held_out) == 10
    others = {tuple(labels[stratified_split(labels, 0.1, seed)[1]]) for seed in range(5)}
    assert len(others) == 5  # which classes give one is the seed's choice


def test_single_pictures_stay_in_training():
    kept, held_out = stratified_split([0, 0, 0, 0, 1], 0.9, 0)
    assert len(held_out) == 3
    assert 4 in kept


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_wrong_fractions_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        stratified_split([0, 1], fraction, 0)


@given(LABELS, st.integers(1, 7), SEEDS)
def test_folds_divide_each_class_evenly(labels, folds, seed):
    assigned = stratified_folds(labels, folds, seed)
    values = np.array(labels, dtype=int)
    for value in set(labels):
        sizes = np.bincount(assigned[values == value], minlength=folds)
        assert len(sizes) == folds
        assert sizes.max() - sizes.min() <= 1
