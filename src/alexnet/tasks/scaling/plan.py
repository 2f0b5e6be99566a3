"""Time, memory and traffic of a training on any number of devices, before it is paid for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alexnet.errors import UsageError, unknown_name
from alexnet.tasks.scaling import steps as step_costs
from alexnet.tasks.scaling.counts import BUFFERS, Counts, count
from alexnet.tasks.scaling.memory import Memory, memory, share
from alexnet.tasks.scaling.steps import StepCost
from alexnet.tasks.scaling.timeline import Link, apart, overlapped
from alexnet.tasks.scaling.traffic import SCHEMES, check, exchanges, fits

Parallel = Literal["ddp", "hybrid", "towers", "all"]
IMAGENET = 1_281_167
"""Training pictures of ILSVRC 2012."""


@dataclass(frozen=True)
class Row:
    """A training on so many devices.

    Attributes:
        parallel: how they share the work.
        devices: how many.
        batch_size: pictures a step on each (on the one that has the most).
        total_batch_size: pictures a step on all.
        step_seconds: of a step in which gradients are sent during the backward pass.
        step_seconds_apart: of one in which nothing overlaps.
        images_per_second: at ``step_seconds``.
        efficiency: that over ``devices`` times the figure of one device. Above 1 where devices
            share what costs the same for any batch (the update, with ``hybrid`` and ``towers``).
        efficiency_apart: the same at ``step_seconds_apart``.
        steps: in the whole training.
        seconds: of the whole training at ``step_seconds``.
        seconds_apart: the same at ``step_seconds_apart``.
        sent_bytes: by each device in a step.
        messages: by each device in a step.
        memory: of each device.
    """

    parallel: str
    devices: int
    batch_size: int
    total_batch_size: int
    step_seconds: float
    step_seconds_apart: float
    images_per_second: float
    efficiency: float
    efficiency_apart: float
    steps: int
    seconds: float
    seconds_apart: float
    sent_bytes: int
    messages: int
    memory: Memory

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "memory": self.memory.to_dict()}


@dataclass(frozen=True)
class Training:
    """What is asked for.

    Attributes:
        images: training pictures.
        epochs: times that they are gone through.
        batch_size: pictures a step on each device.
        total_batch_size: pictures a step on all devices together, divided among them; None is
            ``batch_size`` on each.
        optimizer: ``"sgd"`` or ``"adamw"``.
    """

    images: int = IMAGENET
    epochs: int = 90
    batch_size: int = 128
    total_batch_size: int | None = None
    optimizer: str = "sgd"

    def check(self) -> None:
        """Raise UsageError for a number below 1 or an unknown optimizer."""
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} is {value}: it must be at least 1")
        if self.optimizer not in BUFFERS:
            raise unknown_name("optimizer", self.optimizer, BUFFERS)

    def batches(self, devices: int) -> tuple[int, int]:
        """Pictures a step: on the device that has the most, and on all."""
        if self.total_batch_size is None:
            return self.batch_size, self.batch_size * devices
        return math.ceil(self.total_batch_size / devices), self.total_batch_size


@dataclass(frozen=True)
class TrainingPlan:
    """What :func:`plan_training` found.

    Attributes:
        counts: the network, layer by layer.
        cost: of a step on one device.
        link: between devices.
        training: what was asked for.
        rows: a row for each way to share the work and each number of devices.
    """

    counts: Counts
    cost: StepCost
    link: Link
    training: Training
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; seconds and bytes."""
        return {
            **self.counts.to_dict(),
            "step": {
                **self.cost.to_dict(),
                "moved_bytes": step_costs.step_bytes(self.counts, self.training.optimizer),
            },
            "network_bytes_per_second": self.link.bandwidth,
            "latency_seconds": self.link.latency,
            "training": vars(self.training),
            "rows": [row.to_dict() for row in self.rows],
        }


def plan_training(
    model: str = "alexnet",
    *,
    gpus: int = 1024,
    network: float = 100.0,
    latency: float = 5.0,
    batch_size: int = 128,
    total_batch_size: int | None = None,
    parallel: Parallel = "all",
    images: int = IMAGENET,
    epochs: int = 90,
    step: Mapping[int, float] | None = None,
    device_tflops: float | None = None,
    memory_bandwidth: float | None = None,
    precision: str = "auto",
    device: str = "auto",
    optimizer: str = "sgd",
) -> TrainingPlan:
    """Tell time, memory and traffic of a training on 1, 2, 4, ... devices.

    A step's time on one device is measured here, unless it is given. Reading pictures, augmentation
    and validation are not part of it.

    Args:
        model: as in :func:`alexnet.create_model`.
        gpus: the largest number of devices.
        network: Gbit/s that each device can send while it receives as many.
        latency: microseconds that a message takes beside its bytes.
        batch_size: pictures a step on each device.
        total_batch_size: pictures a step on all devices together instead, divided among them.
        parallel: ``"ddp"``, ``"hybrid"``, ``"towers"``, or ``"all"`` that suit the network.
        images: training pictures.
        epochs: times that they are gone through.
        step: steps measured elsewhere, as ``{pictures: seconds}``; two sizes tell what a step costs
            beside its pictures.
        device_tflops: instead of measuring, what a device sustains, in 10^12 operations a second.
        memory_bandwidth: of a device's memory in GB/s, for what a step moves whatever its batch;
            only with ``device_tflops`` or a single ``step``.
        precision: ``"auto"`` (what this machine would use), ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        device: where to measure.
        optimizer: ``"sgd"`` with momentum, or ``"adamw"``.

    Returns:
        The plan; its rows hold the table.

    Raises:
        UsageError: an unknown name, a number out of range, or a network that cannot be split so.
    """
    if step and device_tflops is not None:
        raise UsageError("--step and --device-tflops both tell a step's time: give one of them")
    training = Training(images, epochs, batch_size, total_batch_size, optimizer)
    training.check()
    if gpus < 1:
        raise UsageError(f"--gpus is {gpus}: it must be at least 1")
    link = Link.of(network, latency)
    given = bool(step) or device_tflops is not None
    bandwidth = step_costs.read_bandwidth(memory_bandwidth, given=given)
    elsewhere = given and precision != "auto"  # then nothing is asked of this machine
    chosen = None if elsewhere else step_costs.resolve(model, device, precision)
    counts = count(model, precision if chosen is None else chosen.precision)
    schemes = _schemes(parallel, counts, gpus)
    if step:
        cost = step_costs.from_points(step, counts, optimizer, bandwidth)
    elif device_tflops is not None:
        cost = step_costs.from_speed(counts, device_tflops * 1e12, optimizer, bandwidth)
    else:
        assert chosen is not None
        cost = step_costs.measured(counts, chosen, optimizer)
    rows = [
        plan_row(scheme, counts, cost, link, training, devices)
        for scheme in schemes
        for devices in numbers(gpus, training.total_batch_size)
        if fits(scheme, counts, devices)
    ]
    return TrainingPlan(counts, cost, link, training, tuple(rows))


def plan_row(
    scheme: str, counts: Counts, cost: StepCost, link: Link, training: Training, devices: int
) -> Row:
    """One number of devices."""
    batch_size, total = training.batches(devices)
    alone = training.batches(1)[0]
    single = alone / cost.seconds(alone)
    sent = exchanges(scheme, counts, devices, batch_size)
    compute = batch_size * cost.per_picture
    update = cost.per_step * share(scheme, counts, devices)
    one_by_one = apart(compute, update, sent, link)
    together = min(one_by_one, overlapped(counts, compute, update, sent, link))
    steps = training.epochs * math.ceil(training.images / total)
    return Row(
        parallel=scheme,
        devices=devices,
        batch_size=batch_size,
        total_batch_size=total,
        step_seconds=together,
        step_seconds_apart=one_by_one,
        images_per_second=total / together,
        efficiency=total / together / (devices * single),
        efficiency_apart=total / one_by_one / (devices * single),
        steps=steps,
        seconds=steps * together,
        seconds_apart=steps * one_by_one,
        sent_bytes=round(sum(one.sent for one in sent)),
        messages=sum(one.messages for one in sent),
        memory=memory(scheme, counts, devices, batch_size, training.optimizer),
    )


def numbers(gpus: int, total_batch_size: int | None = None) -> Iterable[int]:
    """The numbers of devices to tell of: powers of two, and ``gpus`` itself.

    A device without a picture is of no use: there are never more than the batch has pictures.
    """
    most = gpus if total_batch_size is None else min(gpus, total_batch_size)
    return sorted({*(1 << power for power in range(most.bit_length())), most})


def _schemes(parallel: str, counts: Counts, gpus: int) -> list[str]:
    """The ways to share the work that are asked for and possible."""
    if parallel == "all":
        return [scheme for scheme in SCHEMES if fits(scheme, counts, 2)]
    if parallel not in SCHEMES:
        raise unknown_name("way to share the work", parallel, [*SCHEMES, "all"])
    check(parallel, counts, gpus)
    return [parallel]
