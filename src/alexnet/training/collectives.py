"""What processes send each other within a network: collectives that gradients flow back through.

Each forward is undone by its transpose: what was gathered is summed and divided, what was summed is
gathered. All sends go in ``[rank 0, rank 1, ...]`` order, so results do not depend on timing.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather(part: Tensor, dim: int) -> Tensor:
    """Every process's ``part`` side by side along ``dim``; backward sums the gradients' parts.

    Each process sends its part to the others: (n - 1) / n of the result, in a ring.
    """
    return _Gather.apply(part, dim)  # type: ignore[no-any-return]


def sum_parts(whole: Tensor, dim: int) -> Tensor:
    """This process's part along ``dim`` of the sum of every process's ``whole``.

    Backward gathers the gradient. ``whole`` must divide evenly along ``dim``.
    """
    return _SumParts.apply(whole, dim)  # type: ignore[no-any-return]


def sum_whole(part: Tensor) -> Tensor:
    """The sum of every process's tensor, for a loss that each process computes alike.

    Backward hands the gradient through: each process holds the whole of it.
    """
    return _SumWhole.apply(part)  # type: ignore[no-any-return]


def all_gather(part: Tensor, dim: int) -> Tensor:
    """Without gradients: the parts side by side along ``dim``."""
    part = part.contiguous()
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part)
    return torch.cat(parts, dim)


def reduce_scatter(whole: Tensor, dim: int) -> Tensor:
    """Without gradients: this process's part along ``dim`` of the sum.

    Each process sends every other its part, (n - 1) / n of the tensor: as many bytes as a ring
    sends. gloo's own reduce-scatter reduces the whole and would send twice as many.
    """
    count = dist.get_world_size()
    if whole.shape[dim] % count:
        raise ValueError(f"{whole.shape[dim]} along {dim} cannot be divided by {count} processes")
    stacked = torch.stack(whole.chunk(count, dim)).contiguous()
    received = torch.empty_like(stacked)
    dist.all_to_all_single(received, stacked)
    return received.sum(0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        return all_gather(part, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return reduce_scatter(gradients[0], ctx.dim), None


class _SumParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, dim: int) -> Tensor:
        ctx.dim = dim
        return reduce_scatter(whole, dim)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return all_gather(gradients[0], ctx.dim), None


class _SumWhole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]
