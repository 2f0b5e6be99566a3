"""Which way of sharing a step was asked for."""

from __future__ import annotations

from torch import nn

from alexnet.errors import UsageError
from alexnet.runtime import Runtime
from alexnet.training.config import TrainingConfig
from alexnet.training.hybrid import Hybrid, divisible
from alexnet.training.parallel import DataParallel, Parallel
from alexnet.training.towers import Towers, two_towers


def share_work(network: nn.Module, config: TrainingConfig, runtime: Runtime) -> Parallel:
    """The network ready to be trained by all processes together.

    Raises:
        UsageError: as :func:`check_sharing`.
    """
    check_sharing(network, config, runtime)
    if config.parallel == "hybrid":
        return Hybrid(network, runtime)
    if config.parallel == "towers":
        return Towers(network, runtime)
    return DataParallel(network, runtime) if runtime.world_size > 1 else Parallel(network)


def check_sharing(network: nn.Module, config: TrainingConfig, runtime: Runtime) -> None:
    """Refuse, before anything is written, what cannot be shared as it was asked for.

    Raises:
        UsageError: a way that does not suit the network, the optimizer or the number of processes.
    """
    way = config.parallel
    if way == "ddp":
        return
    if runtime.world_size == 1:
        raise UsageError(
            f"--parallel {way} needs several processes: start them with "
            "torchrun --nproc-per-node 2 -m alexnet train ..."
        )
    if config.optimizer == "lars":
        raise UsageError(
            f"--parallel {way} divides layers, of which LARS needs the whole norm: use "
            "--parallel ddp, or training.optimizer=sgd"
        )
    if runtime.precision == "fp16":
        raise UsageError(f"--parallel {way} with fp16 is not possible: use training.precision=bf16")
    if way == "hybrid":
        divisible(network, runtime.world_size)
    else:
        two_towers(network, runtime.world_size)
