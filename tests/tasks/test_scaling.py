from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import alexnet
from alexnet.errors import UsageError
from alexnet.tasks.scaling import Training, TrainingPlan
from alexnet.tasks.scaling.counts import Counts, count
from alexnet.tasks.scaling.memory import memory
from alexnet.tasks.scaling.plan import numbers
from alexnet.tasks.scaling.show import cells, describe, duration, lines
from alexnet.tasks.scaling.steps import from_points, from_speed, read_steps, step_bytes
from alexnet.tasks.scaling.timeline import Link, apart, overlapped
from alexnet.tasks.scaling.traffic import Exchange, exchanges, gradients

CONVOLUTIONS = 34_944 + 307_456 + 885_120 + 663_936 + 442_624
HEAD = 37_752_832 + 16_781_312 + 4_097_000


@functools.cache
def counted(model: str = "alexnet", precision: str = "fp32") -> Counts:
    return count(model, precision)


def planned(**settings: Any) -> TrainingPlan:
    given: dict[str, Any] = {"step": {128: 0.4}, "precision": "fp32", **settings}
    return alexnet.plan_training(**given)


def sent(scheme: str, devices: int, batch_size: int = 128, precision: str = "fp32") -> float:
    found = exchanges(scheme, counted(precision=precision), devices, batch_size)
    return sum(one.sent for one in found)


def test_multiplications_forward_and_backward() -> None:
    facts = counted()
    assert facts.parameters == 60_965_224 == CONVOLUTIONS + HEAD
    forward = 724_406_816
    assert sum(layer.macs for layer in facts.layers) == forward
    # conv1's input is the picture: nobody asks for its gradient.
    assert facts.macs == 3 * forward - 96 * 55 * 55 * 363
    assert facts.groups == 2


def test_a_ring_sends_what_the_formula_says() -> None:
    assert Exchange("", "forward", "all-gather", 1000, 4).sent == 750
    assert Exchange("", "forward", "reduce-scatter", 1000, 4).messages == 3
    assert Exchange("", "gradients", "all-reduce", 1000, 4).sent == 1500
    assert Exchange("", "gradients", "all-reduce", 1000, 4).messages == 6


def test_ddp_by_hand() -> None:
    assert sent("ddp", 2) == 4 * 60_965_224  # 243.9 MB
    assert sent("ddp", 4) == 1.5 * 4 * 60_965_224
    assert sent("ddp", 2, batch_size=1) == sent("ddp", 2)
    assert sent("ddp", 2, precision="bf16") == sent("ddp", 2)  # gradients stay float32


def test_hybrid_by_hand() -> None:
    # Two ranks of 128 pictures: of 256 rows of pool5, fc7 and logits each sends half, both ways.
    pool5, fc7, fc8 = 9216, 4096, 1000
    activations = 2 * 128 * (pool5 + fc7 + fc8)
    assert sent("hybrid", 2) == 4 * (activations + CONVOLUTIONS) == 23_991_808
    assert sent("hybrid", 2, precision="bf16") == 2 * activations + 4 * CONVOLUTIONS
    # Eight ranks: 7/8 of the 1,024 pictures' rows, both ways.
    rows = 2 * 7 / 8 * 1024 * (pool5 + fc7 + fc8)
    assert sent("hybrid", 8) == 4 * (rows + 2 * 7 / 8 * CONVOLUTIONS)


def test_towers_by_hand() -> None:
    # A pair works on 256 pictures. Each sends its half of what is gathered, and half of the
    # gradients of the whole; of the logits, which are summed, twice a half. Counted on the wire
    # (benchmarks/parallel_traffic.py): 59.0 MB.
    pool2, pool5, fc6, logits = 256 * 13 * 13, 9216, 4096, 1000
    assert sent("towers", 2) == 4 * 256 / 2 * 2 * (pool2 + pool5 + fc6 + logits) == 58_957_824
    assert sent("towers", 4) == sent("towers", 2) + 4 * 60_965_224 / 2


@pytest.mark.parametrize("scheme", ["ddp", "hybrid", "towers"])
def test_one_device_sends_nothing(scheme: str) -> None:
    assert exchanges(scheme, counted(), 1, 128) == []
    (row,) = planned(gpus=1, parallel=scheme).rows
    assert row.sent_bytes == row.messages == row.memory.exchanged == 0
    assert row.efficiency == row.efficiency_apart == 1
    assert row.step_seconds == row.step_seconds_apart == pytest.approx(0.4)


def test_gradients_are_collected_as_ddp_does() -> None:
    found = gradients([(layer.name, layer.parameters) for layer in counted().layers], 2)
    assert [one.layer for one in found] == ["fc8", "fc7", "fc6", "conv1"]
    assert [one.size for one in found] == [
        4 * n for n in (4_097_000, 16_781_312, 37_752_832, CONVOLUTIONS)
    ]
    assert gradients([("a", 10)], 1) == []


def test_bounds_and_monotony() -> None:
    rows = planned(parallel="ddp").rows
    assert [row.devices for row in rows] == [1 << n for n in range(11)]
    for row in rows:
        assert 0 < row.efficiency_apart <= row.efficiency <= 1
        assert row.step_seconds_apart >= row.step_seconds
    for one, next_one in itertools.pairwise(rows):
        assert next_one.efficiency < one.efficiency
        assert next_one.images_per_second > one.images_per_second
        assert next_one.seconds < one.seconds
        assert next_one.sent_bytes > one.sent_bytes
    assert rows[-1].sent_bytes < 2 * 4 * 60_965_224  # the ring's limit


def test_without_a_wait_for_the_network_scaling_is_perfect() -> None:
    for row in planned(network=1e12, latency=0).rows:
        assert row.efficiency == pytest.approx(1, abs=1e-6)


def test_splitting_the_update_is_worth_more_than_one() -> None:
    steps = {8: 0.11, 128: 0.41}  # 90 ms a step, 2.5 ms a picture
    for row in planned(step=steps, network=1e12, latency=0, gpus=2, parallel="hybrid").rows[1:]:
        kept = (CONVOLUTIONS + HEAD / 2) / 60_965_224
        assert row.step_seconds == pytest.approx(128 * 0.0025 + 0.09 * kept)


def test_the_timeline_by_hand() -> None:
    facts = counted()
    second = facts.macs / 1e9  # a multiplication takes a nanosecond
    fc7 = facts.layer("fc7")
    done_when = sum(layer.macs for layer in facts.layers)
    done_when += facts.layer("fc8").backward_macs + fc7.backward_macs
    link = Link(bandwidth=1e9, latency=0.0)
    short = [Exchange("fc7", "gradients", "all-reduce", 1000, 2)]
    assert overlapped(facts, second, 0.25, short, link) == pytest.approx(second + 0.25)
    long = [Exchange("fc7", "gradients", "all-reduce", 5_000_000_000, 2)]
    assert overlapped(facts, second, 0.25, long, link) == pytest.approx(done_when / 1e9 + 5.25)
    queued = [*long, Exchange("fc6", "gradients", "all-reduce", 1_000_000_000, 2)]
    assert overlapped(facts, second, 0, queued, link) == pytest.approx(done_when / 1e9 + 6)
    waits = [Exchange("fc6", "forward", "all-gather", 4_000_000_000, 2)]
    assert overlapped(facts, second, 0.25, waits, link) == pytest.approx(second + 2.25)
    for found in (short, long, waits):
        bound = apart(second, 0.25, found, link)
        assert bound >= overlapped(facts, second, 0.25, found, link) - 1e-9
    assert Link.of(8, 10).bandwidth == 1e9
    assert Link.of(8, 10).latency == pytest.approx(1e-5)
    assert Link(1e9, 1e-3).seconds(long[0]) == pytest.approx(5.002)


def test_steps_from_points() -> None:
    facts = counted()
    cost = from_points({8: 0.11, 32: 0.17}, facts, "sgd")
    assert cost.per_picture == pytest.approx(0.0025)
    assert cost.seconds(128) == pytest.approx(0.09 + 0.32)
    noisy = from_points({10: 0.09, 20: 0.2}, facts, "sgd")  # the line begins below zero
    assert (noisy.per_step, noisy.per_picture) == (0, pytest.approx(0.01))
    single = from_points({100: 1.0}, facts, "sgd")
    assert (single.per_step, single.per_picture) == (0, 0.01)
    # read twice, gradient written and read, weight and momentum read and written: 32 bytes.
    assert step_bytes(facts, "sgd") == 32 * 60_965_224
    assert step_bytes(counted(precision="bf16"), "adamw") == (4 + 8 + 24) * 60_965_224
    moved = 32 * 60_965_224 / 100e9
    divided = from_points({100: 1.0}, facts, "sgd", 100e9)
    assert divided.per_step == pytest.approx(moved)
    assert divided.seconds(100) == pytest.approx(1)
    assert from_speed(facts, 1e12, "sgd", 100e9).seconds(1) == pytest.approx(
        moved + 2 * facts.macs / 1e12
    )


def test_a_step_that_is_measured_here() -> None:
    found = alexnet.plan_training("lenet5_dense", gpus=2, device="cpu", images=100, epochs=2)
    assert [size for size, _ in found.cost.points] == [32, 128]
    assert found.cost.seconds(128) > 0
    assert "measured here (cpu, fp32, 1 threads)" in describe(found)
    assert {row.parallel for row in found.rows} == {"ddp"}  # nothing to split
    assert [row.steps for row in found.rows] == [2, 2]


@pytest.mark.parametrize("model", ["alexnet", "alexnet_bn", "lenet5_dense"])
def test_activations_are_those_that_torch_keeps(model: str) -> None:
    arguments: dict[str, Any] = {} if model == "lenet5_dense" else {"image_size": 67, "hidden": 32}
    network = alexnet.create_model(model, **arguments).train()
    weights = {p.data_ptr() for p in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    batch = 16  # LeNet's stage rounds up to as many as a vector has numbers, 16 at most
    pictures = torch.randn(batch, *network.__dict__["pretrained_cfg"]["input_size"])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(network(pictures), torch.zeros(batch, dtype=torch.long))
    measured = sum(
        tensor.untyped_storage().nbytes() for where, tensor in kept.items() if where not in weights
    )
    facts = count(model, "fp32", **arguments)
    found = memory("ddp", facts, 1, batch, "sgd")
    assert found.activations == measured
    assert found.weights == 4 * sum(p.numel() for p in network.parameters())


def test_memory_of_a_device() -> None:
    weights = 4 * 60_965_224
    alone = memory("ddp", counted(), 1, 128, "adamw")
    assert (alone.weights, alone.gradients, alone.optimizer) == (weights, weights, 2 * weights)
    assert memory("ddp", counted(), 64, 128, "adamw") == alone
    split = memory("hybrid", counted(), 4, 128, "sgd")
    assert split.weights == 4 * (CONVOLUTIONS + HEAD // 4)
    assert split.exchanged == 3 * 128 * (9216 + 4096) * 4
    assert memory("towers", counted(), 2, 128, "sgd").weights == weights // 2
    # Weights cast to bf16 are kept for the backward pass, whatever the batch.
    cast = sum(layer.saved_once for layer in counted(precision="bf16").layers)
    biases = 96 + 256 + 384 + 384 + 256 + 4096 + 4096 + 1000
    assert cast == 2 * (60_965_224 - biases) + 4  # and the sum of the loss's weights


def test_a_batch_that_is_divided() -> None:
    rows = planned(total_batch_size=1000, gpus=3, parallel="ddp", network=1e9, latency=0).rows
    assert [(row.devices, row.batch_size) for row in rows] == [(1, 1000), (2, 500), (3, 334)]
    assert [row.steps for row in rows] == [90 * 1282] * 3
    assert rows[2].images_per_second == pytest.approx(1000 / (334 * 0.4 / 128))
    assert list(numbers(1024, 5)) == [1, 2, 4, 5]


def test_ninety_epochs_of_imagenet() -> None:
    (row,) = planned(gpus=1, parallel="ddp").rows
    assert row.steps == 90 * 10_010  # 1,281,167 pictures, 128 a step
    assert row.seconds == pytest.approx(90 * 10_010 * 0.4)


def test_tables_for_people() -> None:
    found = planned(gpus=6, network=48)
    titles = [title.split(":")[0] for title, _ in lines(found)]
    assert titles == ["ddp", "hybrid", "towers"]
    assert [row.devices for row in found.rows if row.parallel == "towers"] == [1, 2, 4, 6]
    assert "48 Gbit/s a device" in describe(found)
    assert cells(found.rows[1])[:2] == [2, 256]
    assert [duration(s) for s in (0.0123, 12, 660, 7200, 475_200)] == [
        "12.3 ms", "12 s", "11 min", "2 h", "5.5 d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"gpus": 0}, "--gpus is 0: it must be at least 1"),
        ({"batch_size": 0}, "--batch-size is 0: it must be at least 1"),
        ({"total_batch_size": -1}, "--total-batch-size is -1: it must be at least 1"),
        ({"network": 0}, "--network is 0: it must be above 0 Gbit/s"),
        ({"latency": -1}, "--latency is -1: it must be 0 or more microseconds"),
        ({"parallel": "hybird"}, "unknown way to share the work 'hybird': did you mean 'hybrid'?"),
        ({"parallel": "towers", "gpus": 3}, "--parallel towers needs pairs: --gpus 3 is odd"),
        ({"parallel": "towers", "model": "alexnet_owt"}, "two groups, fc6, fc7 and fc8, which"),
        ({"parallel": "hybrid", "model": "lenet5"}, "use --parallel ddp, or --model alexnet"),
        ({"model": "alexnt"}, "unknown model 'alexnt': did you mean 'alexnet'?"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"optimizer": "sdg"}, "unknown optimizer 'sdg': did you mean 'sgd'?"),
        ({"device_tflops": 1.0}, "give one of them"),
        ({"step": None, "device_tflops": 0.0}, "--device-tflops 0: it must be above 0"),
        ({"step": {128: 0.0}}, "--step 0@128: seconds and pictures must be above 0"),
        ({"step": {8: 1.0, 32: 0.5}}, "a larger batch takes no longer by these steps"),
        ({"memory_bandwidth": 0}, "--memory-bandwidth is 0: it must be above 0 GB/s"),
        ({"memory_bandwidth": 1}, "is shorter than what it must move takes"),
        ({"step": None, "memory_bandwidth": 1}, "goes with --step or --device-tflops"),
    ],
)
def test_wrong_use_is_told_in_a_line(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as error:
        planned(**settings)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_steps_as_a_person_writes_them() -> None:
    assert read_steps(["0.1@8", "3e-1@128"]) == {8: 0.1, 128: 0.3}
    for wrong in ("0.1", "a@8", "0.1@x", "0.1@8@9"):
        with pytest.raises(UsageError, match="write, for example, --step"):
            read_steps([wrong])
    with pytest.raises(UsageError, match="names 8 pictures twice"):
        read_steps(["0.1@8", "0.2@8"])


def test_what_is_asked_for_has_defaults() -> None:
    assert Training().batches(4) == (128, 512)
