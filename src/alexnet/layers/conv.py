"""The convolution layer: torch's, and where that saves time, by way of the frequencies."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.layers.reach import in_reach
from alexnet.layers.spectral import Geometry, at_work, cost
from alexnet.layers.spectral_kernels import Kernel, best_kernel

WORTH = 1.3
"""How many times the foreseen cost of the way by the frequencies the direct one has to have."""

LONGEST = 64
"""Of a transform: its matrices grow by the square, and a map's cost by its side."""


class Conv2d(nn.Conv2d):
    """A drop-in for ``torch.nn.Conv2d``, faster for large batches of float32 on a processor.

    Input ``[N, C, H, W]``, output ``[N, O, h, w]``. Maps in channels_last of layers with stride 1
    are convolved by :mod:`alexnet.layers.spectral` where that is foreseen to take less time; the
    results differ by rounding, which is a share of the largest numbers of a picture, and one that
    is not finite reaches all of its picture. ``ALEXNET_SPECTRAL=0`` leaves all to torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``input``."""
        weight, bias = self.weight, self.bias
        geometry = self._geometry(input, weight, bias)
        if geometry is None:
            return self._conv_forward(input, weight, bias)
        convolved: Tensor = Spectral.apply(
            input, weight, bias, geometry, self.groups, best_kernel()
        )
        return convolved

    def _geometry(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Geometry | None:
        """The sides of maps and kernels, where the way by the frequencies is the faster one."""
        if not self._suits(x, weight, bias) or isinstance(self.padding, str):
            return None
        (tall, wide), (height, width), (down, across) = self.kernel_size, x.shape[2:], self.padding
        geometry = Geometry((height, width), (tall, wide), (down, across))
        if min(geometry.outputs) < 1 or down >= tall or across >= wide:
            return None
        if max(geometry.periods) > LONGEST:
            return None
        direct, spectral = cost(geometry, len(x), self.in_channels, self.out_channels, self.groups)
        threads = torch.get_num_threads()
        share = at_work(geometry, threads) / threads
        return geometry if direct * share >= WORTH * spectral else None

    def _suits(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether all is float32 in a processor's memory, channels innermost, and the stride 1."""
        kernels = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        parts = (x, weight) if bias is None else (x, weight, bias)
        return (
            all(in_reach(part) and part.dtype == torch.float32 for part in parts)
            and x.dim() == 4
            and x.shape[1] == self.in_channels
            and x.is_contiguous(memory_format=torch.channels_last)
            and weight.shape == kernels
            and (bias is None or (bias.shape == kernels[:1] and bias.is_contiguous()))
            and (self.stride, self.dilation, self.padding_mode) == ((1, 1), (1, 1), "zeros")
            and not torch.is_autocast_enabled("cpu")
            and os.environ.get("ALEXNET_SPECTRAL") != "0"
        )


class Spectral(torch.autograd.Function):
    """The convolution with its gradients; it keeps the input and nothing else."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        groups: int,
        kernel: Kernel,
    ) -> Tensor:
        """Convolve ``x`` ``[N, C, H, W]``, channels_last, by ``weight`` ``[O, C / groups, r, s]``.

        All is float32.
        """
        ctx.save_for_backward(x, weight)
        ctx.told = geometry, groups, kernel, bias is not None
        return kernel.forward(x, weight, bias, geometry, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by ``x``, ``weight`` and ``bias``."""
        (g,), (x, weight) = gradients, ctx.saved_tensors
        geometry, groups, kernel, biased = ctx.told
        wanted = ctx.needs_input_grad[:3]
        # A gradient of the gradient is asked for, or one of several at once.
        if torch.is_grad_enabled() or not in_reach(g):
            found = torch.ops.aten.convolution_backward(
                g, x, weight, [len(weight)] if biased else None, [1, 1], list(geometry.padding),
                [1, 1], False, [0, 0], groups, list(wanted),
            )  # fmt: skip
        else:
            # What was kept may have been put away and come back laid out otherwise.
            x, g = (maps.contiguous(memory_format=torch.channels_last) for maps in (x, g))
            with torch.autocast("cpu", enabled=False):
                found = kernel.backward(x, weight, g, geometry, groups, wanted)
        return (*found, None, None, None)
