"""Everything in a training that moves: put together into a checkpoint and taken from one.

A checkpoint is whole: what processes have parts of is gathered, so that any number of processes,
sharing in any way, can go on from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from alexnet.runtime import Runtime
from alexnet.training.average import Average
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_optimizer
from alexnet.training.parallel import Parallel


class TrainingState:
    """The weights in training, the optimizer, the average, and fp16's loss scale.

    Attributes:
        parallel: how processes share a step; it has the network.
        optimizer: over what this process trains.
        average: of the weights, where one is kept.
        scaler: for fp16; it does nothing in other precisions.
    """

    def __init__(self, parallel: Parallel, config: TrainingConfig, runtime: Runtime) -> None:
        self.parallel = parallel
        self.optimizer = build_optimizer(parallel.parameters(), config)
        weights = parallel.trained.state_dict()
        self.average = Average(weights, config.ema) if config.ema else None
        fp16 = runtime.precision == "fp16"
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=fp16)

    def gather(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All tensors, whole, and all numbers; every process calls it together."""
        whole = self.parallel.whole
        state = self.parallel.trained.state_dict()
        tensors = {f"model.{name}": whole(name, part) for name, part in state.items()}
        if self.average:
            for name, part in self.average.tensors.items():
                tensors[f"average.{name}"] = whole(name, part)
        kept = self.optimizer.state
        groups, numbers = [], {}
        for group in self.optimizer.param_groups:
            groups.append({key: value for key, value in group.items() if key != "params"})
            for name, parameter in zip(group["names"], group["params"], strict=True):
                for key, value in kept.get(parameter, {}).items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer.{name}.{key}"] = whole(name, value)
                    else:
                        numbers[f"{name}.{key}"] = value
        return tensors, {
            "groups": groups,
            "numbers": numbers,
            "average_steps": self.average.steps if self.average else 0,
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take what :meth:`gather` returned.

        Raises:
            KeyError, RuntimeError, ValueError: a checkpoint of another network or optimizer.
        """
        part = self.parallel.part
        own = self.parallel.trained.state_dict()
        weights = {name: part(name, tensors[f"model.{name}"]) for name in own}
        self.parallel.trained.load_state_dict(weights)
        if self.average:
            for name, average in self.average.tensors.items():
                average.copy_(part(name, tensors[f"average.{name}"]))
            self.average.steps = int(numbers["average_steps"])
        self._restore_optimizer(tensors, numbers)
        if numbers["scaler"]:
            self.scaler.load_state_dict(dict(numbers["scaler"]))

    def _restore_optimizer(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        for group, saved in zip(self.optimizer.param_groups, numbers["groups"], strict=True):
            if group["names"] != saved["names"]:
                raise ValueError("the optimizer's parameters are others")
            group.update(saved)
            for name, parameter in zip(group["names"], group["params"], strict=True):
                start = f"optimizer.{name}."
                state = self.optimizer.state[parameter]
                for key, value in tensors.items():
                    if key.startswith(start):
                        own = self.parallel.part(name, value)
                        state[key.removeprefix(start)] = _placed(own, parameter, group)
                for key, value in numbers["numbers"].items():
                    if key.startswith(f"{name}."):
                        state[key.removeprefix(f"{name}.")] = value


def _placed(buffer: Tensor, parameter: Tensor, group: Mapping[str, Any]) -> Tensor:
    """The buffer where its parameter is, and in its memory layout.

    A file keeps no layout, and fused kernels walk through a parameter and its buffers as they lie
    in memory: with a parameter in ``channels_last`` they would take other elements' momentum. They
    also want the number of steps beside the parameter; others want it on the processor.
    """
    if buffer.shape != parameter.shape:
        return buffer.to(parameter.device) if group.get("fused") else buffer
    return torch.empty_like(parameter, dtype=buffer.dtype).copy_(buffer)
