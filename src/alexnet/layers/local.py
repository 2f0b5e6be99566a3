"""A convolution whose weights are not shared between positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LocallyConnected2d(nn.Module):
    """Like a convolution of stride 1, with a kernel of its own at every position.

    cuda-convnet's ``local`` layer, which the paper's CIFAR-10 network ends with.
    Input ``[N, in_channels, side, side]``, output ``[N, out_channels, out, out]`` with
    ``out = side + 2 * padding - kernel_size + 1``.

    Args:
        in_channels: input maps.
        out_channels: output maps.
        side: side of the input maps, which are square.
        kernel_size: side of the kernels.
        padding: zeros around the input.

    Attributes:
        weight: ``[out * out, out_channels, in_channels * kernel_size ** 2]``.
        bias: ``[out_channels, out, out]``.
    """

    def __init__(
        self, in_channels: int, out_channels: int, side: int, kernel_size: int, padding: int = 0
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.padding = kernel_size, padding
        self.out_side = side + 2 * padding - kernel_size + 1
        if self.out_side < 1:
            raise ValueError(f"maps of {side} pixels are smaller than the {kernel_size} kernel")
        fan_in = in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.empty(self.out_side**2, out_channels, fan_in))
        self.bias = nn.Parameter(torch.empty(out_channels, self.out_side, self.out_side))
        bound = 1 / math.sqrt(fan_in)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply each position's own kernel to ``x`` (``[N, in_channels, side, side]``)."""
        patches = F.unfold(x, self.kernel_size, padding=self.padding)  # N, fan_in, positions
        out = torch.bmm(patches.permute(2, 0, 1), self.weight.transpose(1, 2))  # positions, N, out
        return out.permute(1, 2, 0).unflatten(2, (self.out_side, self.out_side)) + self.bias

    def extra_repr(self) -> str:
        """The arguments, for ``print(network)``."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"padding={self.padding}, out={self.out_side}x{self.out_side}"
        )
