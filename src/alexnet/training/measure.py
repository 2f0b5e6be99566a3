"""How long one training step takes on the machine at hand."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.models.registry import create_model
from alexnet.runtime import Runtime
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_loss, build_optimizer


@dataclass(frozen=True)
class StepTime:
    """Measured training steps.

    Attributes:
        batch_size: pictures a step.
        runs: seconds of each step, the warm-up left out.
    """

    batch_size: int
    runs: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """The median of :attr:`runs`."""
        return statistics.median(self.runs)

    @property
    def images_per_second(self) -> float:
        """Pictures a second at the median."""
        return self.batch_size / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "batch_size": self.batch_size,
            "seconds": self.seconds,
            "min": min(self.runs),
            "max": max(self.runs),
            "runs": len(self.runs),
        }


def measure_step(
    network: str | nn.Module,
    batch_size: int,
    runtime: Runtime,
    steps: int = 3,
    *,
    warmup: int = 1,
    training: TrainingConfig | None = None,
) -> StepTime:
    """Time whole training steps on pictures of noise.

    A step is what the training loop does with a batch that is on the device: gradients cleared,
    forward pass in ``runtime.autocast()``, loss, backward pass, update. Decoding and augmentation
    are not part of it. The weights of a network that is passed in are changed.

    Args:
        network: a name as in :func:`alexnet.create_model`, or a network that it built; one that
            was wrapped for several processes will do too.
        batch_size: pictures a step.
        runtime: device, precision and threads.
        steps: how many steps are timed.
        warmup: how many steps are taken before them; at least one, since the first allocates.
        training: optimizer and loss; the defaults are SGD with momentum.

    Returns:
        The time of each step in seconds; on a GPU the device is waited for.

    Raises:
        UsageError: fewer than one picture, step or warm-up step, or an unknown network.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps), ("warmup", warmup)):
        if value < 1:
            raise UsageError(f"{name} is {value}: it must be at least 1")
    config = training or TrainingConfig()
    if isinstance(network, str):
        network = create_model(network)
    network = runtime.place_network(network).train()
    optimizer = build_optimizer(network, config)
    with runtime.active():
        inputs, classes = _noise(network, batch_size, runtime)
        labels = (torch.arange(batch_size) % classes).to(runtime.device)
        loss_of = build_loss(_unwrapped(network), config, torch.ones(classes))
        runs = []
        for _ in range(warmup + steps):
            _wait(runtime.device)
            began = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            with runtime.autocast():
                logits = network(inputs)
            loss_of(logits, labels).backward()
            optimizer.step()
            _wait(runtime.device)
            runs.append(time.perf_counter() - began)
    return StepTime(batch_size, tuple(runs[warmup:]))


def _noise(network: nn.Module, batch_size: int, runtime: Runtime) -> tuple[Tensor, int]:
    """Random pictures ``[N, C, size, size]``, and how many classes the network tells apart."""
    inner = _unwrapped(network)
    cfg = inner.__dict__["pretrained_cfg"]
    inputs = runtime.place(torch.randn(batch_size, *cfg["input_size"]))
    *_, last = inner.state_dict().values()  # of another library's network: its output's bias
    return inputs, cfg["num_classes"] or len(last)


def _unwrapped(network: nn.Module) -> nn.Module:
    """The network itself, where it was wrapped for several processes."""
    inner = getattr(network, "module", None)
    return inner if isinstance(inner, nn.Module) else network


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
