from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alexnet.models import create_model
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import (
    build_loss,
    build_optimizer,
    learning_rate,
    set_learning_rate,
)


def rates(total: int, **settings: Any) -> list[float]:
    config = TrainingConfig(lr=1.0, **settings)
    return [learning_rate(step, total, config) for step in range(total)]


def test_the_constant_schedule() -> None:
    assert rates(5, schedule="constant", warmup=0.0) == [1.0] * 5


def test_the_cosine_schedule_starts_at_the_rate_and_falls_to_zero() -> None:
    found = rates(100, schedule="cosine", warmup=0.0)
    assert found[0] == 1.0
    assert found[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert found[50] == pytest.approx(0.5)
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 0.001


def test_the_step_schedule_falls_to_a_tenth_at_one_and_two_thirds() -> None:
    found = rates(9, schedule="step", warmup=0.0)
    assert found == pytest.approx([1.0] * 3 + [0.1] * 3 + [0.01] * 3)


def test_the_warm_up_rises_in_equal_steps_and_meets_the_schedule() -> None:
    found = rates(100, schedule="cosine", warmup=0.1)
    assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert found[10] == 1.0
    assert max(found) == 1.0
    assert found[55] == pytest.approx(0.5)  # half of what is left of the way


def test_a_warm_up_of_no_whole_step_stays_below_the_rate() -> None:
    found = rates(10, schedule="constant", warmup=0.25)
    assert found[:3] == pytest.approx([1 / 4, 2 / 4, 3 / 4])
    assert found[3:] == [1.0] * 7


def one_layer() -> nn.Linear:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0]]))
    layer.weight.grad = torch.tensor([[0.5, 1.0]])
    return layer


def test_a_step_of_sgd_by_hand() -> None:
    layer = one_layer()
    config = TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = build_optimizer(layer.parameters(), config)
    optimizer.step()
    weight, gradient = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0]])
    velocity = gradient + 0.01 * weight
    weight = weight - 0.1 * velocity
    torch.testing.assert_close(layer.weight.detach(), weight)
    optimizer.step()
    velocity = 0.9 * velocity + gradient + 0.01 * weight
    torch.testing.assert_close(layer.weight.detach(), weight - 0.1 * velocity)


def test_a_step_of_nesterov_by_hand() -> None:
    layer = one_layer()
    config = TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.0, nesterov=True)
    build_optimizer(layer.parameters(), config).step()
    gradient = torch.tensor([[0.5, 1.0]])
    expected = torch.tensor([[1.0, -2.0]]) - 0.1 * (gradient + 0.9 * gradient)
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_a_step_of_adamw_by_hand() -> None:
    layer = one_layer()
    config = TrainingConfig(optimizer="adamw", lr=0.1, weight_decay=0.5)
    build_optimizer(layer.parameters(), config).step()
    weight, gradient = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0]])
    # After one step the corrected moments are the gradient and its square.
    expected = weight * (1 - 0.1 * 0.5) - 0.1 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_kernels_are_fused_and_frozen_weights_left_out(optimizer: Any) -> None:
    network = create_model("lenet5_dense")
    next(network.parameters()).requires_grad = False
    built = build_optimizer(network.parameters(), TrainingConfig(optimizer=optimizer))
    (group,) = built.param_groups
    assert group["fused"] is True
    assert len(group["params"]) == len(list(network.parameters())) - 1
    set_learning_rate(built, 0.125)
    assert group["lr"] == 0.125


def test_nesterov_without_momentum_is_plain_sgd() -> None:
    config = TrainingConfig(momentum=0.0, nesterov=True, lr=0.1, weight_decay=0.0)
    layer = one_layer()
    build_optimizer(layer.parameters(), config).step()
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.95, -2.1]]))


def test_logit_adjustment_is_equation_10_of_menon_et_al() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    labels, counts = torch.tensor([0, 2]), torch.tensor([60, 30, 10])
    loss = build_loss(nn.Identity(), TrainingConfig(class_balance=0.7), counts)
    expected = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        # log(1 + sum over the other classes of (prior of it / prior of ours)^tau exp(difference))
        others = sum(
            (float(counts[other]) / float(counts[label])) ** 0.7 * math.exp(row[other] - row[label])
            for other in range(3)
            if other != label
        )
        expected += math.log1p(others) / 2
    assert float(loss(logits, labels)) == pytest.approx(expected, rel=1e-6)


def test_equal_classes_need_no_adjustment() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    loss = build_loss(nn.Identity(), TrainingConfig(class_balance=1.0), torch.full((4,), 7))
    torch.testing.assert_close(loss(logits, labels), F.cross_entropy(logits, labels))


def test_a_class_without_a_picture_is_no_infinity() -> None:
    loss = build_loss(nn.Identity(), TrainingConfig(class_balance=1.0), torch.tensor([5, 0]))
    assert loss(torch.zeros(2, 2), torch.tensor([0, 0])).isfinite()


def test_labels_are_smoothed() -> None:
    logits, labels = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([0])
    loss = build_loss(nn.Identity(), TrainingConfig(label_smoothing=0.2), torch.ones(4))
    target = torch.tensor([[0.85, 0.05, 0.05, 0.05]])
    expected = -(target * logits.log_softmax(1)).sum()
    torch.testing.assert_close(loss(logits, labels), expected)


def test_the_network_s_own_criterion_is_used() -> None:
    network = create_model("lenet5")
    logits, labels = -torch.rand(4, 10) * 50, torch.tensor([1, 2, 3, 4])
    loss = build_loss(network, TrainingConfig(), torch.ones(10))
    criterion: Any = network.loss
    torch.testing.assert_close(loss(logits, labels), criterion(logits, labels))
    assert not torch.allclose(loss(logits, labels), F.cross_entropy(logits, labels))


def test_the_loss_is_taken_in_float32() -> None:
    logits = torch.randn(3, 4).to(torch.bfloat16)
    loss = build_loss(nn.Identity(), TrainingConfig(), torch.ones(4))
    assert loss(logits, torch.tensor([0, 1, 2])).dtype == torch.float32
