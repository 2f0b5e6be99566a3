"""Mean and principal components of pixels, against NumPy's in float64."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data import colors
from alexnet.data.colors import ColorStatistics, color_noise, measure_colors
from alexnet.data.loader import MemoryPixels
from alexnet.native import Native, native


def stored(images: torch.Tensor) -> MemoryPixels:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return MemoryPixels(images, labels, [str(row) for row in range(len(images))])


def pictures(count: int, channels: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, side, side)
    gray = torch.randint(0, 256, (count, 1, side, side), generator=generator)
    own = torch.randint(0, 256, shape, generator=generator)
    share = torch.arange(1, channels + 1).view(1, channels, 1, 1) / 5
    return (share * own + (1 - share) * gray).to(torch.uint8)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.sampled_from([1, 3]), st.integers(2, 9), st.integers(0, 99))
def test_equals_numpy(count, channels, side, seed):
    images = pictures(count, channels, side, seed)
    ours = measure_colors(stored(images))
    values = images.double().numpy().transpose(1, 0, 2, 3).reshape(channels, -1) / 255
    assert ours.mean == pytest.approx(values.mean(1).tolist(), rel=1e-12)
    covariance = np.atleast_2d(np.cov(values, ddof=0))
    eigenvalues, vectors = np.linalg.eigh(covariance)
    assert ours.eigenvalues == pytest.approx(eigenvalues[::-1].tolist(), rel=1e-9, abs=1e-14)
    assert list(ours.eigenvalues) == sorted(ours.eigenvalues, reverse=True)
    for row, value, column in zip(
        ours.eigenvectors, ours.eigenvalues, vectors.T[::-1], strict=True
    ):
        assert covariance @ np.array(row) == pytest.approx(value * np.array(row), abs=1e-12)
        assert abs(np.dot(row, column)) == pytest.approx(1, abs=1e-6)
        assert max(row, key=abs) > 0
    assert ours.pictures == count


def test_sums_are_exact():
    # Far from zero and almost without spread: rounded sums of squares would lose it.
    images = torch.full((40, 1, 64, 64), 255, dtype=torch.uint8)
    images[17, 0, 3, 5] = 254
    ours = measure_colors(stored(images))
    share = Fraction(1, images.numel())
    assert ours.mean == (float((255 - share) / 255),)
    assert ours.eigenvalues == (float(share * (1 - share) / 255**2),)
    assert ours.eigenvectors == ((1.0,),)


@pytest.mark.parametrize("channels", [1, 3])
def test_sums_are_the_same_without_the_library(channels, monkeypatch):
    images = pictures(5, channels, 200)  # more pixels than are summed at once
    images[0] = 255
    ours = measure_colors(stored(images))
    assert native().library is not None, native().why
    monkeypatch.setattr(colors, "native", lambda: Native(None, "not here"))
    assert measure_colors(stored(images)) == ours


def test_no_spread_at_all():
    images = torch.full((3, 3, 4, 4), 51, dtype=torch.uint8)
    ours = measure_colors(stored(images))
    assert ours.mean == (0.2,) * 3
    assert ours.eigenvalues == (0.0,) * 3


@pytest.mark.parametrize(("count", "limit"), [(10, 4), (100, 64), (7, 6), (5, 1)])
def test_of_many_pictures_some_are_picked_evenly(count, limit):
    images = torch.zeros(count, 1, 2, 2, dtype=torch.uint8) + torch.arange(
        count, dtype=torch.uint8
    ).view(-1, 1, 1, 1)
    ours = measure_colors(stored(images), limit=limit)
    picked = [row * count // limit for row in range(limit)]
    assert ours.pictures == limit
    assert ours.mean[0] == pytest.approx(sum(picked) / limit / 255)
    assert np.ptp(np.diff(picked)) <= 1 if limit > 1 else picked == [0]


def test_through_json_and_back():
    ours = measure_colors(stored(pictures(3, 3, 5)))
    assert ColorStatistics.from_dict(json.loads(json.dumps(ours.to_dict()))) == ours
    assert ours.to_dict() == json.loads(json.dumps(ours.to_dict()))


def test_noise_points_along_the_eigenvectors():
    colors = ColorStatistics(
        (0.5,) * 3, (0.25, 0.04, 0.01), ((0, 0, 1), (0.6, 0.8, 0), (0.8, -0.6, 0)), 1
    )
    ones = torch.eye(3)
    along = torch.tensor(colors.eigenvectors)
    variance = 255 * along * torch.tensor([[0.25], [0.04], [0.01]])
    assert torch.allclose(color_noise(ones, colors, "variance"), variance)
    deviation = 255 * along * torch.tensor([[0.5], [0.2], [0.1]])
    assert torch.allclose(color_noise(ones, colors, "deviation"), deviation)


def test_wrong_calls_are_refused():
    with pytest.raises(ValueError, match="limit=0"):
        measure_colors(stored(pictures(2, 1, 2)), limit=0)
    with pytest.raises(ValueError, match="0 pictures"):
        measure_colors(stored(pictures(0, 1, 2)))
    with pytest.raises(ValueError, match="3 channels"):
        ColorStatistics((0.1, 0.2, 0.3), (0.1,), ((1.0,),), 1)
