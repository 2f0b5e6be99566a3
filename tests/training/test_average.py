from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.training.average import Average


def weights_at(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "weight": torch.randn(3, 4, dtype=torch.float64, generator=generator),
        "bias": torch.randn(3, dtype=torch.float32, generator=generator),
        "steps": torch.tensor(step),
        "seen": torch.tensor([step % 2 == 0, True]),
    }


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.9999])
def test_fifty_steps_are_those_of_the_formula(decay: float) -> None:
    average = Average(weights_at(0), decay)
    expected = {name: weights_at(0)[name].double().numpy() for name in ("weight", "bias")}
    for step in range(50):
        weights = weights_at(step + 1)
        average.update(weights)
        kept = min(decay, (1 + step) / (10 + step))
        for name, before in expected.items():
            expected[name] = kept * before + (1 - kept) * weights[name].double().numpy()
        np.testing.assert_allclose(average.tensors["weight"], expected["weight"], rtol=1e-12)
        np.testing.assert_allclose(average.tensors["bias"], expected["bias"], rtol=1e-5, atol=1e-6)
    assert average.steps == 50


def test_what_is_no_number_with_a_point_is_the_newest() -> None:
    average = Average(weights_at(0), 0.999)
    for step in (1, 2):
        average.update(weights_at(step))
        assert int(average.tensors["steps"]) == step
        assert average.tensors["seen"].tolist() == [step % 2 == 0, True]
    assert average.tensors["steps"].dtype == torch.int64


def test_the_weights_themselves_are_left_alone() -> None:
    network = nn.BatchNorm1d(2)
    average = Average(network.state_dict(), 0.9)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        network.weight.add_(1)
    average.update(network.state_dict())
    assert torch.equal(network.weight, before["weight"] + 1)
    assert torch.allclose(average.tensors["weight"], before["weight"] + 0.9)  # 1/10 is kept
    assert not average.tensors["weight"].requires_grad
