from __future__ import annotations

import pytest
import torch

from alexnet import runtime
from alexnet.errors import UsageError
from alexnet.models import create_model
from alexnet.training.config import TrainingConfig
from alexnet.training.measure import StepTime, measure_step

SMALL = runtime.resolve("cpu", "fp32", large=False)


def test_the_warm_up_is_left_out_and_the_weights_move() -> None:
    network = create_model("lenet5_dense")
    before = [p.detach().clone() for p in network.parameters()]
    found = measure_step(network, 4, SMALL, 5, warmup=2)
    assert len(found.runs) == 5
    assert found.seconds == sorted(found.runs)[2]
    assert found.images_per_second == 4 / found.seconds
    moved = [not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("name", ["lenet5", "lenet1989", "torchvision:squeezenet1_1"])
def test_networks_by_name(name: str) -> None:
    training = TrainingConfig(optimizer="adamw", class_balance=1.0, label_smoothing=0.1)
    assert measure_step(name, 2, SMALL, 1, training=training).seconds > 0


def test_the_median_and_range_are_told() -> None:
    found = StepTime(10, (3.0, 1.0, 2.0)).to_dict()
    assert found == {"batch_size": 10, "seconds": 2.0, "min": 1.0, "max": 3.0, "runs": 3}


@pytest.mark.parametrize(
    ("name", "values"), [("batch_size", (0, 1, 1)), ("steps", (1, 0, 1)), ("warmup", (1, 1, 0))]
)
def test_nothing_to_measure(name: str, values: tuple[int, int, int]) -> None:
    batch_size, steps, warmup = values
    with pytest.raises(UsageError, match=f"{name} is 0: it must be at least 1"):
        measure_step("lenet5", batch_size, SMALL, steps, warmup=warmup)
