from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from alexnet.models import create_model
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import (
    build_loss,
    build_optimizer,
    learning_rate,
    lower_rate,
    plateaus,
    set_rates,
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


def test_the_poly_schedule_falls_to_zero_as_a_power() -> None:
    assert rates(4, schedule="poly", warmup=0.0) == [1.0, 0.75**2, 0.5**2, 0.25**2]
    assert rates(4, schedule="poly", warmup=0.0, power=1.0) == [1.0, 0.75, 0.5, 0.25]
    assert rates(4, schedule="poly", warmup=0.5, power=3.0) == [1 / 3, 2 / 3, 1.0, 0.5**3]


def test_the_milestones_schedule_falls_after_those_epochs() -> None:
    found = rates(12, schedule="milestones", warmup=0.0, epochs=6, milestones=(2, 3))
    assert found == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 6)
    assert rates(4, schedule="milestones", warmup=0.0, epochs=2) == [1.0] * 4


def test_the_table_schedule_has_a_rate_for_each_epoch_and_the_last_one_stays() -> None:
    found = rates(8, schedule="table", warmup=0.0, epochs=4, rates=(0.5, 0.25, 0.125))
    assert found == [0.5] * 2 + [0.25] * 2 + [0.125] * 4


@settings(deadline=None)
@given(
    scores=st.lists(st.integers(0, 12), max_size=60).map(lambda seq: [one / 12 for one in seq]),
    patience=st.integers(1, 6),
    drops=st.integers(0, 4),
)
def test_the_plateau_schedule_is_pytorch_s(scores: list[float], patience: int, drops: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.5)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", patience=patience - 1, threshold=0.0, eps=0.0, min_lr=0.5 * 0.1**drops
    )
    config = TrainingConfig(
        schedule="plateau", plateau=patience, drops=drops, lr=0.5, warmup=0.0, epochs=99
    )
    for epoch in range(len(scores) + 1):
        ours = learning_rate(epoch, 99, config, scores[:epoch])
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if epoch < len(scores):
            theirs.step(scores[epoch])


def test_plateaus_are_counted_from_the_end_of_the_one_before() -> None:
    assert plateaus([0.5, 0.5, 0.4], 2) == 1
    assert plateaus([0.5, 0.5, 0.4, 0.4], 2) == 1
    assert plateaus([0.5, 0.5, 0.4, 0.4, 0.5], 2) == 2
    assert plateaus([0.5, 0.5, 0.6, 0.6, 0.7], 2) == 0
    assert plateaus([], 1) == 0


Array = npt.NDArray[np.float64]

CHANGING = [0.1] * 20 + [0.01] * 15 + [0.05] * 10 + [0.001] * 5
"""A rate for each of 50 steps: it falls, rises and falls again."""
DROP = 20


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(4, 5)).double()


def weights_of(network: nn.Module) -> dict[str, Array]:
    return {name: p.detach().numpy().copy() for name, p in network.named_parameters()}


def gradients_of(network: nn.Module) -> Iterator[dict[str, Array]]:
    random = np.random.default_rng(1)
    while True:
        yield {name: random.normal(size=p.shape) for name, p in network.named_parameters()}


def move(network: nn.Module, optimizer: torch.optim.Optimizer, gradients: dict[str, Array]) -> None:
    for name, parameter in network.named_parameters():
        parameter.grad = torch.from_numpy(gradients[name].copy())
    optimizer.step()


def assert_weights(network: nn.Module, expected: dict[str, Array], step: int) -> None:
    for name, weights in weights_of(network).items():
        np.testing.assert_allclose(weights, expected[name], rtol=1e-11, err_msg=f"{step} {name}")


def test_fifty_steps_of_the_paper_s_rule_while_the_rate_changes() -> None:
    """Section 5: v = 0.9 v - 0.0005 lr w - lr gradient, then w = w + v."""
    network, usual = two_layers(), two_layers()
    config = TrainingConfig(optimizer="paper", momentum=0.9, weight_decay=0.0005)
    ours = build_optimizer(network, config)
    theirs = torch.optim.SGD(usual.parameters(), 0.1, momentum=0.9, weight_decay=0.0005)
    w = weights_of(network)
    v = {name: np.zeros_like(one) for name, one in w.items()}
    stream = gradients_of(network)
    for step, rate in enumerate(CHANGING):
        gradients, before = next(stream), weights_of(network)
        for name in w:
            v[name] = 0.9 * v[name] - 0.0005 * rate * w[name] - rate * gradients[name]
            w[name] = w[name] + v[name]
        set_rates(ours, rate, 0, config)
        theirs.param_groups[0]["lr"] = rate
        move(network, ours, gradients)
        move(usual, theirs, gradients)
        assert_weights(network, w, step)
        if step < DROP:
            assert_weights(usual, w, step)
        if step == DROP:  # the paper's goes on at nearly the old speed, PyTorch's at a tenth of it
            paces = [
                sum(np.abs(after[name] - before[name]).sum() for name in w)
                for after in (weights_of(network), weights_of(usual))
            ]
            assert paces[0] > 5 * paces[1]


@pytest.mark.parametrize("decay", ["all", "weights"])
def test_fifty_steps_of_lars_while_the_rate_changes(decay: Any) -> None:
    """You et al. 2017, equation 6 and algorithm 1, the rate being outside of the momentum.

    What does not decay is not scaled either: it moves as by SGD.
    """
    network = two_layers()
    config = TrainingConfig(
        optimizer="lars", momentum=0.8, weight_decay=0.01, trust=0.02, decay=decay
    )
    optimizer = build_optimizer(network, config)
    w = weights_of(network)
    v = {name: np.zeros_like(one) for name, one in w.items()}
    stream = gradients_of(network)
    for step, rate in enumerate(CHANGING):
        gradients = next(stream)
        for name in w:
            g = gradients[name]
            if decay == "all" or w[name].ndim > 1:
                size, steepness = np.linalg.norm(w[name]), np.linalg.norm(g)
                # A normalization's biases begin at 0, of which nothing can be trusted.
                trust = 0.02 * size / (steepness + 0.01 * size + 1e-8) if size else 1.0
                g = trust * (g + 0.01 * w[name])
            v[name] = 0.8 * v[name] + g
            w[name] = w[name] - rate * v[name]
        set_rates(optimizer, rate, 0, config)
        move(network, optimizer, gradients)
        assert_weights(network, w, step)


@pytest.mark.parametrize("optimizer", ["sgd", "paper", "adamw", "lars"])
def test_with_decay_of_weights_biases_and_normalizations_are_a_group_without(
    optimizer: Any,
) -> None:
    config = TrainingConfig(optimizer=optimizer, decay="weights", weight_decay=0.25)
    groups = build_optimizer(two_layers(), config).param_groups
    decays = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decays == {
        "0.weight": 0.25, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.25,
        "2.bias": 0.0,
    }  # fmt: skip
    assert len(groups) == 2
    (group,) = build_optimizer(two_layers(), TrainingConfig(optimizer=optimizer)).param_groups
    assert len(group["params"]) == 6


def rates_of(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    return {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}


def test_biases_have_a_rate_of_their_own_and_do_not_decay() -> None:
    network = two_layers()
    config = TrainingConfig(bias_lr=0.02, weight_decay=0.5, momentum=0.0)
    optimizer = build_optimizer(network, config)
    before = weights_of(network)
    set_rates(optimizer, 0.1, 7, config)
    small = {"0.bias", "1.weight", "1.bias", "2.bias"}
    assert rates_of(optimizer) == {name: 0.02 if name in small else 0.1 for name in before}
    gradients = next(gradients_of(network))
    move(network, optimizer, gradients)
    expected = {
        name: w - 0.02 * gradients[name] if name in small else w - 0.1 * (gradients[name] + 0.5 * w)
        for name, w in before.items()
    }
    assert_weights(network, expected, 0)


@pytest.mark.parametrize("optimizer", ["sgd", "paper", "adamw", "lars"])
def test_the_first_layer_slows_down_and_then_stands_still(optimizer: Any) -> None:
    network = two_layers()
    config = TrainingConfig(optimizer=optimizer, stem_epochs=(2, 4), stem_lr=0.003, bias_lr=0.02)
    built = build_optimizer(network, config)
    stream = gradients_of(network)
    for epoch, expected in enumerate([(0.1, 0.02)] * 2 + [(0.003, 0.003)] * 2 + [(0.0, 0.0)] * 2):
        set_rates(built, 0.1, epoch, config)
        found = rates_of(built)
        assert (found["0.weight"], found["0.bias"]) == expected
        assert (found["1.weight"], found["2.weight"], found["2.bias"]) == (0.02, 0.1, 0.02)
        before = weights_of(network)
        move(network, built, next(stream))
        moved = {n: not np.array_equal(w, before[n]) for n, w in weights_of(network).items()}
        assert moved == {name: epoch < 4 or name[0] != "0" for name in before}


def test_without_stem_epochs_the_first_layer_is_like_the_others() -> None:
    config = TrainingConfig()
    (group,) = build_optimizer(two_layers(), config).param_groups
    assert group["stem"] is False
    assert group["names"] == [name for name, _ in two_layers().named_parameters()]


def test_parameters_by_name_are_taken_like_a_network_s() -> None:
    network = two_layers()
    named = {name: p for name, p in network.named_parameters() if name.startswith("2.")}
    (group,) = build_optimizer(named, TrainingConfig()).param_groups
    assert group["names"] == ["2.weight", "2.bias"]
    assert group["params"][0] is network.get_parameter("2.weight")


def one_layer() -> nn.Linear:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0]]))
    layer.weight.grad = torch.tensor([[0.5, 1.0]])
    return layer


def test_a_step_of_sgd_by_hand() -> None:
    layer = one_layer()
    config = TrainingConfig(lr=0.1, momentum=0.9, weight_decay=0.01)
    optimizer = build_optimizer(layer, config)
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
    build_optimizer(layer, config).step()
    gradient = torch.tensor([[0.5, 1.0]])
    expected = torch.tensor([[1.0, -2.0]]) - 0.1 * (gradient + 0.9 * gradient)
    torch.testing.assert_close(layer.weight.detach(), expected)


def test_a_step_of_adamw_by_hand() -> None:
    layer = one_layer()
    config = TrainingConfig(optimizer="adamw", lr=0.1, weight_decay=0.5)
    build_optimizer(layer, config).step()
    weight, gradient = torch.tensor([[1.0, -2.0]]), torch.tensor([[0.5, 1.0]])
    # After one step the corrected moments are the gradient and its square.
    expected = weight * (1 - 0.1 * 0.5) - 0.1 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(layer.weight.detach(), expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_kernels_are_fused_and_frozen_weights_left_out(optimizer: Any) -> None:
    network = create_model("lenet5_dense")
    next(network.parameters()).requires_grad = False
    built = build_optimizer(network, TrainingConfig(optimizer=optimizer))
    (group,) = built.param_groups
    assert group["fused"] is True
    assert len(group["params"]) == len(list(network.parameters())) - 1
    set_rates(built, 0.125, 0, TrainingConfig())
    assert group["lr"] == 0.125


def test_nesterov_without_momentum_is_plain_sgd() -> None:
    config = TrainingConfig(momentum=0.0, nesterov=True, lr=0.1, weight_decay=0.0)
    layer = one_layer()
    build_optimizer(layer, config).step()
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


def paper_step(weights: Array, v: Array, rate: float, gradient: Array | None) -> None:
    """The paper's rule in place, without decay; without a gradient nothing moves."""
    if gradient is not None:
        v[...] = 0.9 * v - rate * gradient
        weights += v


@pytest.mark.parametrize("way", ["gradients", "closure", "scaler"])
def test_what_does_not_move_when_the_rate_changes_goes_on_from_where_it_was(way: str) -> None:
    random = np.random.default_rng(0)
    parameters = {name: nn.Parameter(torch.zeros(40)) for name in "ab"}
    config = TrainingConfig(optimizer="paper", momentum=0.9, weight_decay=0.0)
    built: Any = build_optimizer(parameters, config)
    if way == "scaler":
        built.grad_scale, built.found_inf = torch.tensor(1.0), torch.tensor(0.0)
    w = {name: np.zeros(40) for name in "ab"}
    v = {name: np.zeros(40) for name in "ab"}
    for number, rate in enumerate([0.1, 0.1, 0.01, 0.01, 0.05, 0.001, 0.001]):
        gradients = {name: random.normal(size=40) for name in "ab"}
        if number in (2, 5):
            del gradients["b"]

        def closure(gradients: dict[str, Array] = gradients) -> float:
            for name, parameter in parameters.items():
                found = gradients.get(name)
                parameter.grad = None if found is None else torch.from_numpy(found).float()
            return 0.0

        set_rates(built, rate, 0, config)
        if way == "closure":
            for parameter in parameters.values():
                parameter.grad = None
            built.step(closure)
        else:
            closure()
            built.step()
        assert built.param_groups[0]["momentum"] == 0.9
        for name in "ab":
            paper_step(w[name], v[name], rate, gradients.get(name))
            found = parameters[name].detach().numpy()
            np.testing.assert_allclose(found, w[name], atol=1e-5, err_msg=f"{number} {name}")


def test_a_step_that_fp16_leaves_out_as_the_rate_changes_loses_no_momentum() -> None:
    weight = nn.Parameter(torch.zeros(1))
    config = TrainingConfig(optimizer="paper", momentum=0.9, weight_decay=0.0)
    built: Any = build_optimizer({"a": weight}, config)
    built.grad_scale, built.found_inf = torch.tensor(1.0), torch.tensor(0.0)
    for rate, gradient, left_out in ((0.1, 1.0, 0.0), (0.01, 1.0, 1.0), (0.01, 0.0, 0.0)):
        set_rates(built, rate, 0, config)
        weight.grad, built.found_inf = torch.tensor([gradient]), torch.tensor(left_out)
        built.step()
    assert weight.item() == pytest.approx(-0.1 - 0.09)


def test_nesterov_goes_on_at_the_old_pace_as_well() -> None:
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    config = TrainingConfig(optimizer="paper", momentum=0.9, weight_decay=0.0, nesterov=True)
    built = build_optimizer({"a": weight}, config)
    w, v = 0.0, 0.0
    for rate in (0.1, 0.1, 0.01, 0.02):
        set_rates(built, rate, 0, config)
        weight.grad = torch.ones_like(weight)
        built.step()
        v = 0.9 * v - rate
        w += 0.9 * v - rate
        assert weight.item() == pytest.approx(w)


@pytest.mark.parametrize("optimizer", ["sgd", "paper"])
def test_a_first_step_that_fp16_leaves_out_leaves_nothing_behind(optimizer: Any) -> None:
    network = nn.Linear(300, 300)
    config = TrainingConfig(optimizer=optimizer, lr=0.1, precision="fp16", weight_decay=0.0)
    built: Any = build_optimizer(network, config)
    before = network.weight.detach().clone()
    network(torch.full((1, 300), float("inf"))).sum().backward()
    built.grad_scale, built.found_inf = torch.tensor(1.0), torch.tensor(1.0)  # as GradScaler's
    built.step()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.found_inf = torch.tensor(0.0)
    built.step()
    assert torch.equal(network.weight, before)


@pytest.mark.parametrize(
    ("name", "bias"), [("alexnet_cifar", "local3.bias"), ("lenet1989", "bias1.bias")]
)
def test_biases_that_have_a_place_each_are_biases(name: str, bias: str) -> None:
    network = create_model(name)
    assert network.get_parameter(bias).ndim == 3
    built = build_optimizer(network, TrainingConfig(decay="weights", weight_decay=0.1, bias_lr=0.2))
    (group,) = (group for group in built.param_groups if bias in group["names"])
    assert (group["weight_decay"], group["role"]) == (0.0, "biases")


def test_what_is_advised_where_a_training_diverges_has_an_effect() -> None:
    assert lower_rate(TrainingConfig(lr=0.05)) == "training.lr=0.005"
    table = TrainingConfig(schedule="table", rates=(0.0005, 0.0002))
    assert lower_rate(table) == "training.rates=5e-05,2e-05"
