"""Which way of sharing a step was asked for."""

from __future__ import annotations

from torch import nn

from alexnet.errors import UsageError
from alexnet.runtime import Runtime
from alexnet.training.config import TrainingConfig
from alexnet.training.hybrid import Hybrid
from alexnet.training.parallel import DataParallel, Parallel
from alexnet.training.towers import Towers


def share_work(network: nn.Module, config: TrainingConfig, runtime: Runtime) -> Parallel:
    """The network ready to be trained by all processes together.

    Raises:
        UsageError: a way that does not suit the network, the optimizer or the number of processes.
    """
    way = config.parallel
    if way != "ddp" and runtime.world_size == 1:
        raise UsageError(
            f"--parallel {way} needs several processes: start them with "
            "torchrun --nproc-per-node 2 -m alexnet train ..."
        )
    if way != "ddp" and config.optimizer == "lars":
        raise UsageError(
            f"--parallel {way} divides layers, of which LARS needs the whole norm: use "
            "--parallel ddp, or training.optimizer=sgd"
        )
    if way != "ddp" and runtime.precision == "fp16":
        raise UsageError(f"--parallel {way} with fp16 is not possible: use training.precision=bf16")
    if way == "hybrid":
        return Hybrid(network, runtime)
    if way == "towers":
        return Towers(network, runtime)
    return DataParallel(network, runtime) if runtime.world_size > 1 else Parallel(network)
