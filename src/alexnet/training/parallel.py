"""How a training step is shared among the processes that torchrun started.

Each way trains the same network on the same batch: the loss of a process is its share of the
batch's mean loss, and gradients are sums. So the weights after a step do not depend on how many
processes there are or how they share the work, rounding aside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from alexnet.layers import number_masks
from alexnet.runtime import Runtime
from alexnet.training.share import Share


class Parallel:
    """One process alone, and the base of the others.

    Attributes:
        network: whole, in every process; what is validated and kept.
        trained: what this process trains: ``network`` itself, or the parts of it that are its own,
            under the same names.
        data_rank: which share of the batch this process takes ...
        data_count: ... of how many.
    """

    name = "one process"

    def __init__(self, network: nn.Module) -> None:
        self.network: nn.Module = network
        self.trained: nn.Module = network
        self.data_rank, self.data_count = 0, 1

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``[M, K]`` of this process's pictures ``[M, C, size, size]``."""
        logits: Tensor = self.trained(inputs)
        return logits

    def number_masks(self, seed: int, step: int, share: Share, rows: slice) -> None:
        """Tell the dropout layers which masks to draw for these rows of the share."""
        number_masks(self.trained, seed, step, share.rows[rows])

    def accumulating(self) -> contextlib.AbstractContextManager[None]:
        """While entered, gradients stay in this process: more of the batch is to come."""
        return contextlib.nullcontext()

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained here, by the network's names."""
        return {name: p for name, p in self.trained.named_parameters() if p.requires_grad}

    def whole(self, name: str, part: Tensor) -> Tensor:
        """The whole tensor of which this process has ``part``; all processes call it together.

        Args:
            name: of the parameter or buffer; also of what the optimizer keeps of it.
            part: of its shape.
        """
        return part

    def part(self, name: str, whole: Tensor) -> Tensor:
        """What this process has of ``whole``."""
        return whole

    def squared_norm(self) -> Tensor:
        """Sum of the squares of all gradients, of the whole network."""
        gradients = [p.grad for p in self.parameters().values() if p.grad is not None]
        return torch.stack([squares(g) for g in gradients]).sum()

    def clip(self, largest: float) -> None:
        """Scale the gradients down so that their norm, all together, is at most ``largest``."""
        factor = (largest / (self.squared_norm().sqrt() + 1e-6)).clamp(max=1.0)
        for parameter in self.parameters().values():
            if parameter.grad is not None:
                parameter.grad.mul_(factor.to(parameter.grad.dtype))

    def agree(self) -> None:
        """Give :attr:`network` in every process the batch norms' statistics of the first one."""

    @contextlib.contextmanager
    def settled(self, average: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """While entered, :attr:`network` has the trained weights whole, ready to be judged.

        Args:
            average: weights to put there instead, by name, as this process has them.
        """
        if average is None and self.trained is self.network:
            yield
            return
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        source = self.trained.state_dict() if average is None else average
        whole = {name: self.whole(name, part) for name, part in source.items()}
        self.network.load_state_dict(whole)
        self.agree()
        yield
        if self.trained is self.network:
            self.network.load_state_dict(own)


def squares(gradient: Tensor) -> Tensor:
    """Sum of the squares, in float32 at least."""
    wide = gradient if gradient.dtype == torch.float64 else gradient.float()
    return wide.square().sum()


class DataParallel(Parallel):
    """Every process has the network and takes its share of the batch (PyTorch's DDP).

    Batch norms see the share of their process only and keep its statistics; those of the first
    process are the ones that count.
    """

    name = "ddp"

    def __init__(self, network: nn.Module, runtime: Runtime) -> None:
        super().__init__(network)
        self.data_rank, self.data_count = runtime.rank, runtime.world_size
        self._wrapped = wrap(network, runtime)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of this process's share."""
        logits: Tensor = self._wrapped(inputs)
        return logits

    def accumulating(self) -> contextlib.AbstractContextManager[None]:
        """Gradients are not summed yet."""
        return self._wrapped.no_sync()

    @contextlib.contextmanager
    def settled(self, average: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """As in one process, the batch norms' statistics being those of the first one."""
        self.agree()
        with super().settled(average):
            yield

    def agree(self) -> None:
        """Take the buffers of the first process."""
        agree_on_buffers(self.network)


def agree_on_buffers(network: nn.Module) -> None:
    """Give every process the first one's buffers."""
    for buffer in network.buffers():
        dist.broadcast(buffer, src=0)


def wrap(module: nn.Module, runtime: Runtime) -> DistributedDataParallel:
    """PyTorch's DDP, with gradients summed instead of averaged."""
    devices = [runtime.device] if runtime.device.type == "cuda" else None
    wrapped = DistributedDataParallel(module, device_ids=devices, gradient_as_bucket_view=True)
    wrapped.register_comm_hook(None, _summed)  # type: ignore[no-untyped-call]
    return wrapped


def _summed(state, bucket):  # type: ignore[no-untyped-def]  # DDP reads annotations, not as text
    """A DDP hook: each share's loss is divided by the whole batch already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    return work.get_future().then(lambda done: done.value()[0])
