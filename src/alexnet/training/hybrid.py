"""One weird trick: convolutions data parallel, fully connected layers divided (Krizhevsky 2014).

'One weird trick for parallelizing convolutional neural networks' (arXiv:1404.5997), section 4: the
convolutions have 90% of the arithmetic and 5% of the weights, so each process runs all of them on
its share of the batch and their gradients are summed; the fully connected layers have 95% of the
weights, so each process holds a part of them (as DTensors) and runs it on the whole batch. With n
processes, a share of m pictures and P bytes of convolutions, each process sends a step, (n - 1) / n
of:

    pool5 to fc6, and its gradient back     2 x  n m x 9216 numbers     gathered; summed
    fc7's partial sums, and the gradient    2 x  n m x 4096             summed; gathered
    fc8's partial logits, and the gradient  2 x  n m x 1000             summed; gathered
    the convolutions' gradients             2 x  P                      summed

where data parallelism sends 2 x 61 million numbers. fc6 is divided by its outputs, fc7 and fc8 by
their inputs, so that what one layer puts out is what the next one reads. (The paper's scheme (b)
sends the batch's parts one after another, to overlap with the arithmetic; the bytes are the same.)
"""

from __future__ import annotations

import contextlib
import copy

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.nn import functional as F

from alexnet.errors import UsageError
from alexnet.layers import number_masks
from alexnet.models.alexnet import AlexNet
from alexnet.runtime import Runtime
from alexnet.training.collectives import gather, sum_parts
from alexnet.training.parallel import Parallel, agree_on_buffers, squares, wrap
from alexnet.training.share import Share

PLACES: dict[str, Placement] = {
    "fc6.weight": Shard(0),
    "fc6.bias": Shard(0),
    "fc7.weight": Shard(1),
    "fc7.bias": Shard(0),
    "fc8.weight": Shard(1),
    "fc8.bias": Replicate(),
}
"""How each weight is divided among the processes."""


class Hybrid(Parallel):
    """Convolutions data parallel, fc6 to fc8 divided among the same processes.

    Raises:
        UsageError: not an AlexNet with fc6 and fc7, or their units cannot be divided evenly.
    """

    name = "hybrid"

    def __init__(self, network: nn.Module, runtime: Runtime) -> None:
        super().__init__(network)
        count = runtime.world_size
        network = divisible(network, count)
        self.data_rank, self.data_count = runtime.rank, count
        self._mesh = init_device_mesh(runtime.device.type, (count,))
        self._parts = copy.deepcopy(network)
        for name in PLACES:
            layer, _, kind = name.partition(".")
            module = self._parts.get_submodule(layer)
            whole = getattr(module, kind)
            piece = nn.Parameter(self.part(name, whole.detach()), whole.requires_grad)
            setattr(module, kind, piece)
        self.trained = self._parts
        self._body = wrap(_Body(self._parts), runtime)
        first = runtime.rank * network.head_hidden_size // count
        self._parts.drop7.first_unit = first
        self._parts.drop6.first_unit = first if network.dropout_position == "after" else 0

    def part(self, name: str, whole: Tensor) -> Tensor:
        """This process's piece, a DTensor, of a weight of fc6 to fc8; others whole."""
        if name not in PLACES or not whole.dim():  # an optimizer's count of steps has no pieces
            return whole
        return distribute_tensor(whole, self._mesh, [PLACES[name]], src_data_rank=None)

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The pieces of all processes put together."""
        return part.full_tensor() if isinstance(part, DTensor) else part

    def number_masks(self, seed: int, step: int, share: Share, rows: slice) -> None:
        """Dropout comes after the gathering: it sees these rows of every process's share."""
        size = len(share.indices)
        chunk = torch.arange(size)[rows]
        everyone = [rank * size + chunk for rank in range(self.data_count)]
        number_masks(self._parts, seed, step, torch.cat(everyone))

    def agree(self) -> None:
        """Take the buffers of the first process."""
        agree_on_buffers(self.network)

    def accumulating(self) -> contextlib.AbstractContextManager[None]:
        """The convolutions' gradients are not summed yet."""
        return self._body.no_sync()

    def squared_norm(self) -> Tensor:
        """Of the convolutions, and of the pieces of all processes."""
        gradients = {n: p.grad for n, p in self.parameters().items() if p.grad is not None}
        norms = [self.whole(name, squares(gradient)) for name, gradient in gradients.items()]
        return torch.stack(norms).sum()

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of this process's share, by way of every process's fully connected layers."""
        x = gather(self._body(inputs).flatten(1), 0)  # [n m, 9216]
        for name, modules in self._parts.head_steps():
            for module in modules:
                if not isinstance(module, nn.Linear):
                    x = module(x)
                elif name == "fc6":
                    x = F.linear(x, _local(module.weight), _local(module.bias))  # [n m, 4096/n]
                else:
                    x = sum_parts(F.linear(x, _local(module.weight)), 1) + _local(module.bias)
        fc8 = self._parts.fc8
        bias = _local(fc8.bias)
        if self.data_rank:  # added once, and learned from the whole batch's gradient everywhere
            bias = bias - bias.detach()
        return sum_parts(F.linear(x, _local(fc8.weight)) + bias, 0)  # [m, K]


def divisible(network: nn.Module, count: int) -> AlexNet:
    """The network, if ``count`` processes can have it so.

    Raises:
        UsageError: not an AlexNet with fc6 and fc7, or their units cannot be divided evenly.
    """
    if not isinstance(network, AlexNet) or not hasattr(network, "fc6"):
        raise UsageError(
            "--parallel hybrid divides fc6 to fc8 of an AlexNet: choose --model alexnet, or "
            "--parallel ddp"
        )
    if network.head_hidden_size % count:
        raise UsageError(
            f"--parallel hybrid: {network.head_hidden_size} units of fc6 and fc7 cannot be "
            f"divided by {count} processes: start another number, or set model.hidden"
        )
    return network


class _Body(nn.Module):
    """The convolutions alone: what is data parallel."""

    def __init__(self, network: AlexNet) -> None:
        super().__init__()
        self.rows = nn.ModuleList([m for _, modules in network.steps() for m in modules])

    def forward(self, x: Tensor) -> Tensor:
        for module in self.rows:
            x = module(x)
        return x


def _local(weight: Tensor) -> Tensor:
    """This process's numbers of a divided weight."""
    return weight.to_local() if isinstance(weight, DTensor) else weight
