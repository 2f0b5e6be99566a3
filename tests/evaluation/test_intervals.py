"""Intervals: Student's t against SciPy's, and what an interval promises."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from alexnet.evaluation.intervals import FEW, bootstrap, share_interval, students_t, wilson


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 10, 20, 31, 200])
def test_students_t_is_that_of_scipy(count: int) -> None:
    values = np.random.default_rng(count).normal(0.9, 0.02, count)
    error = values.std(ddof=1) / np.sqrt(count)
    wanted = scipy.stats.t.interval(0.95, count - 1, values.mean(), error)
    assert students_t(values.tolist()) == pytest.approx(wanted, abs=0.001 * error)


def test_students_t_holds_the_mean_95_times_of_100() -> None:
    random = np.random.default_rng(0)
    held = [
        low <= 1 <= high
        for low, high in (students_t(random.normal(1, 3, 5).tolist()) for _ in range(2000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_the_bootstrap_of_many_pictures_is_that_of_the_normal_distribution() -> None:
    right = np.random.default_rng(0).random((3, 10_000)) < [[0.5], [0.8], [0.98]]
    share = right.mean(1)
    half = 1.96 * np.sqrt(share * (1 - share) / right.shape[1])
    found = np.array(bootstrap(torch.from_numpy(right)))
    assert (found - np.stack([share - half, share + half], 1)) / half[:, None] == pytest.approx(
        0, abs=0.1
    )


def test_wilson_interval_against_published_values() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0, 1)


def test_answers_that_are_all_right_are_not_sure_to_be() -> None:
    (ends,) = bootstrap(torch.ones(1, 10))
    assert ends == (1, 1)
    assert share_interval(10, 10, ends) == wilson(1, 10)
    assert share_interval(10, 10, ends)[0] == pytest.approx(0.7225, abs=1e-4)
    assert share_interval(100 - FEW, 100, (0.5, 0.6)) == (0.5, 0.6)
