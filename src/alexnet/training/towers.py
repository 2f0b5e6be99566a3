"""The layout of 2012: each tower's half of the network in a process of its own.

Krizhevsky et al. 2012, figure 2: 'the GPUs communicate only at certain layers'. Both processes see
the whole batch; each runs half of the kernels of every layer. They exchange the maps that conv3
reads, pool5 for fc6, fc6 for fc7, and sum fc8's logits; weights and their gradients stay where they
are.
"""

from __future__ import annotations

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.errors import UsageError
from alexnet.layers import LocalResponseNorm
from alexnet.models.alexnet import AlexNet
from alexnet.runtime import Runtime
from alexnet.training.collectives import all_gather, gather, sum_whole
from alexnet.training.parallel import Parallel, squares

TOWERS = 2


class Towers(Parallel):
    """Two processes, a tower each.

    Raises:
        UsageError: not two processes, or a network that has no two towers.
    """

    name = "towers"

    def __init__(self, network: nn.Module, runtime: Runtime) -> None:
        super().__init__(network)
        self.tower = runtime.rank
        self._half = self._halved(two_towers(network, runtime.world_size))
        self.trained = self._half
        dist.barrier()

    def _halved(self, network: AlexNet) -> AlexNet:
        """A copy that has this tower's kernels and units only."""
        half = copy.deepcopy(network)
        for module in half.modules():
            if isinstance(module, LocalResponseNorm):
                module.groups = 1
            elif isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                _resize(module)
        for name, whole in network.state_dict().items():
            layer, _, kind = name.rpartition(".")
            module = half.get_submodule(layer)
            part = self.part(name, whole).clone(memory_format=torch.preserve_format)
            if kind in module._parameters:
                trained = network.get_parameter(name).requires_grad
                setattr(module, kind, nn.Parameter(part, trained))
            else:
                setattr(module, kind, part)
        if hasattr(half, "fc6"):
            first = self.tower * network.head_hidden_size // TOWERS
            half.drop6.first_unit = half.drop7.first_unit = (
                first if network.dropout_position == "after" else 0
            )
        return half

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This tower's half; what has no halves as it is."""
        dim = _divided_along(name, whole)
        return whole if dim is None else whole.chunk(TOWERS, dim)[self.tower]

    def whole(self, name: str, part: Tensor) -> Tensor:
        """Both halves together."""
        dim = _divided_along(name, part)
        return part if dim is None else all_gather(part, dim)

    def squared_norm(self) -> Tensor:
        """Of both halves; what both have counts once."""
        first = next(self.trained.parameters())
        total = torch.zeros(
            (), device=first.device, dtype=torch.promote_types(first.dtype, torch.float32)
        )
        for name, parameter in self.parameters().items():
            if parameter.grad is not None:
                square = squares(parameter.grad)
                shared = _divided_along(name, parameter) is None
                total += square / TOWERS if shared else square
        dist.all_reduce(total)
        return total

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the whole batch, the same in both processes."""
        x = inputs
        for name, modules in self._half.steps():
            x = _apply(modules, gather(x, 1) if name == "conv3" else x)
        x = x.flatten(1)
        for _, modules in self._half.head_steps():
            x = _apply(modules, gather(x, 1))
        fc8 = self._half.fc8
        return sum_whole(F.linear(x, fc8.weight)) + fc8.bias


def two_towers(network: nn.Module, count: int) -> AlexNet:
    """The network, if ``count`` processes can have a tower each.

    Raises:
        UsageError: not two processes, or a network that has no two towers.
    """
    if count != TOWERS:
        raise UsageError(
            f"--parallel towers needs two processes, a tower each, and there are {count}: start "
            "torchrun with --nproc-per-node 2"
        )
    if not isinstance(network, AlexNet) or network.conv2.groups != TOWERS:
        raise UsageError(
            "--parallel towers needs a network of two towers: choose --model alexnet or alexnet_bn"
        )
    if any(isinstance(m, LocalResponseNorm) and m.groups != TOWERS for m in network.modules()):
        raise UsageError(
            "--parallel towers needs a normalization that stays within a tower, as in the original "
            "code: --set model.preset=original"
        )
    return network


def _divided_along(name: str, tensor: Tensor) -> int | None:
    """Along which dimension a parameter or buffer has a half in each tower."""
    if not tensor.dim() or name == "fc8.bias":
        return None
    return 1 if name == "fc8.weight" else 0  # fc8: each tower's half of what it reads


def _resize(module: nn.Conv2d | nn.BatchNorm2d) -> None:
    """Let a layer's numbers say that half of it is here."""
    if isinstance(module, nn.BatchNorm2d):
        module.num_features //= TOWERS
        return
    module.in_channels //= module.groups
    module.groups = 1
    module.out_channels //= TOWERS


def _apply(modules: tuple[nn.Module, ...], x: Tensor) -> Tensor:
    for module in modules:
        x = module(x)
    return x
