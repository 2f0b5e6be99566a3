"""Calibration error, temperature and the bootstrap, against plain numpy and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexnet.evaluation.calibration import fit_temperature, reliability
from alexnet.evaluation.intervals import bootstrap

RANDOM = torch.Generator().manual_seed(0)


def test_calibration_error_is_that_of_a_loop() -> None:
    confidence = torch.rand(500, generator=RANDOM)
    right = torch.rand(500, generator=RANDOM) < confidence**2
    found = reliability(confidence, right)
    error, values = 0.0, confidence.double().numpy()
    for number in range(15):
        within = (values > number / 15) & (values <= (number + 1) / 15)
        if within.any():
            apart = abs(values[within].mean() - right.numpy()[within].mean())
            error += within.mean() * apart
    assert found.error == pytest.approx(error, rel=1e-12)
    assert sum(found.count) == 500


def test_edges_and_empty_bins() -> None:
    found = reliability(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([False, True, True]), bins=2)
    assert found.count == (2, 1)
    assert found.accuracy == (0.5, 1.0)
    assert found.confidence == (0.25, 1.0)
    none = reliability(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    assert none.error == 0
    assert set(none.accuracy) == {None}


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(true: float) -> None:
    logits = 3 * torch.randn(20_000, 5, dtype=torch.float64, generator=RANDOM)
    labels = torch.multinomial((logits / true).softmax(1), 1, generator=RANDOM)[:, 0]
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.05)
    nearby = [
        float(torch.nn.functional.cross_entropy(logits / t, labels))
        for t in (found * 0.99, found, found * 1.01)
    ]
    assert nearby[1] == min(nearby)


def test_a_temperature_stays_within_bounds() -> None:
    logits = torch.eye(3, dtype=torch.float64)
    assert fit_temperature(logits, torch.arange(3)) == pytest.approx(0.05, rel=1e-3)
    assert fit_temperature(logits, torch.tensor([1, 2, 0])) == pytest.approx(20, rel=1e-3)
    with pytest.raises(ValueError, match="no pictures"):
        fit_temperature(logits[:0], torch.arange(0))


def test_the_bootstrap_of_a_share_is_the_binomial_interval() -> None:
    right = torch.zeros(1, 1000)
    right[0, :800] = 1
    ((low, high),) = bootstrap(right)
    half = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.004)
    assert bootstrap(right) == bootstrap(right)


def test_figures_are_of_the_same_samples() -> None:
    values = torch.rand(1, 300, generator=RANDOM)
    whole, half = bootstrap(torch.cat((values, values / 2)))
    assert half == pytest.approx((whole[0] / 2, whole[1] / 2), rel=1e-12)
