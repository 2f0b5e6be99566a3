"""How local response normalization is computed on a processor: few passes over the memory.

A kernel reads a tensor as blocks of channels x places (:class:`Shape`) and works on one piece after
another that stays in the cache. Only the input is kept for the backward pass; sums and powers are
computed again, which costs less than to read them. :class:`Compiled` is C (``native/lrn.c``);
:class:`InPieces` is torch's own operations, for machines without a compiler.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from alexnet.layers.native import native

PIECE = 1 << 17
"""Numbers that :class:`InPieces` works on at a time: half a megabyte of float32."""


@dataclass(frozen=True)
class Window:
    """The formula: ``x[i] * (k + factor * sum of x[j]^2, i-below <= j <= i+above) ^ -beta``."""

    below: int
    above: int
    factor: float
    beta: float
    k: float


@dataclass(frozen=True)
class Shape:
    """A tensor in memory: ``blocks`` blocks of ``channels`` x ``places`` numbers."""

    blocks: int
    channels: int
    places: int


class Kernel(Protocol):
    """Computes float32 and bfloat16; what it is given lies in memory as the shape says."""

    def forward(self, x: Tensor, y: Tensor, shape: Shape, window: Window) -> None:
        """Write the normalized ``x`` into ``y``."""

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Write the gradient by ``x`` into ``dx``; ``g`` is the gradient by what came out."""


class Compiled:
    """``native/lrn.c``, on torch's threads."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def forward(self, x: Tensor, y: Tensor, shape: Shape, window: Window) -> None:
        """Write the normalized ``x`` into ``y``."""
        self._call("forward", shape, window, x, y)

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Write the gradient by ``x`` into ``dx``."""
        self._call("backward", shape, window, x, g, dx)

    def _call(self, name: str, shape: Shape, window: Window, *tensors: Tensor) -> None:
        kind = {torch.float32: "float", torch.bfloat16: "bf16"}[tensors[0].dtype]
        told = _Told(
            shape.blocks, shape.channels, shape.places, window.below, window.above,
            window.factor, window.beta, window.k, torch.get_num_threads(),
        )  # fmt: skip
        places = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        if getattr(self.library, f"lrn_{name}_{kind}")(*places, ctypes.byref(told)):
            raise MemoryError("no memory for local response normalization")


class _Told(ctypes.Structure):
    """``Shape`` of ``native/lrn.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("blocks", "channels", "places", "below", "above")),
        *((name, ctypes.c_float) for name in ("factor", "beta", "k")),
        ("threads", ctypes.c_int),
    )


class InPieces:
    """Torch's operations on pieces that stay in the cache, in float32."""

    def forward(self, x: Tensor, y: Tensor, shape: Shape, window: Window) -> None:
        """Write the normalized ``x`` into ``y``."""
        for source, target in zip(_pieces(x, shape), _pieces(y, shape), strict=True):
            wide = source.float()
            sums = _window_sum(wide.square(), window.below, window.above)
            target.copy_(_power(sums.mul_(window.factor).add_(window.k), window.beta).mul_(wide))

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Write the gradient by ``x`` into ``dx``."""
        for source, gradient, target in zip(
            _pieces(x, shape), _pieces(g, shape), _pieces(dx, shape), strict=True
        ):
            wide, slope = source.float(), gradient.float()
            sums = _window_sum(wide.square(), window.below, window.above)
            power = _power(sums.mul_(window.factor).add_(window.k), window.beta)
            direct = slope * power
            ratio = torch.div(direct, sums, out=sums).mul_(wide)
            through = _window_sum(ratio, window.above, window.below)
            direct.addcmul_(through, wide, value=-2 * window.factor * window.beta)
            target.copy_(direct)


def _pieces(tensor: Tensor, shape: Shape) -> list[Tensor]:
    """Views ``[blocks, channels, places]`` of at most about PIECE numbers."""
    memory = tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
    whole = memory.view(shape.blocks, shape.channels, shape.places)
    return list(whole.split(max(1, PIECE // (shape.channels * shape.places))))


def _window_sum(values: Tensor, below: int, above: int) -> Tensor:
    """Sums over the channels from ``below`` under each to ``above`` over it; zeros beyond."""
    blocks, channels, places = values.shape
    padded = values.new_zeros(blocks, channels + below + above, places)
    padded[:, below : below + channels] = values
    first = padded[:, :channels]
    total = first + padded[:, 1 : 1 + channels] if below + above else first.clone()
    for offset in range(2, below + above + 1):
        total += padded[:, offset : offset + channels]
    return total


def _power(sums: Tensor, beta: float) -> Tensor:
    """``sums ^ -beta``; the paper's 3/4 by two roots."""
    if beta == 0.75:
        root = sums.rsqrt()
        return root.mul_(root.sqrt())
    return sums.pow(-beta)


@functools.cache
def best_kernel() -> Kernel:
    """The compiled one where there is a compiler."""
    library = native().library
    return InPieces() if library is None else Compiled(library)


def is_served(x: Tensor) -> bool:
    """Whether kernels take ``x``: float32 or bfloat16 on a processor, neither traced nor mapped."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        and not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    )


def lay_out(x: Tensor, groups: int) -> tuple[Tensor, Shape]:
    """``x`` in one of the two layouts, copied if it must be, and its shape in memory.

    Args:
        x: ``[N, C, ...]``.
        groups: equal parts of the channels, which become blocks.
    """
    count, channels = x.shape[:2]
    if x.is_contiguous() or not _is_channels_last(x):
        x = x.contiguous()
        return x, Shape(count * groups, channels // groups, x[0, 0].numel() if x.numel() else 0)
    return x, Shape(x.numel() // (channels // groups), channels // groups, 1)


def _is_channels_last(x: Tensor) -> bool:
    """Whether the channels of a place lie side by side, and nothing else in between."""
    return x.dim() > 2 and x.movedim(1, -1).is_contiguous()


class KernelNorm(torch.autograd.Function):
    """Local response normalization by a kernel; keeps ``x`` and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Window, groups: int, kernel: Kernel) -> Tensor:
        """Normalize ``x`` ``[N, C, ...]`` within ``groups`` parts of the channels."""
        x, shape = lay_out(x, groups)
        y = torch.empty_like(x)
        if x.numel():
            kernel.forward(x, y, shape, window)
        ctx.save_for_backward(x)
        ctx.told = shape, window, groups, kernel
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None, None]:
        """The gradient by ``x``."""
        (g,), (x,) = gradients, ctx.saved_tensors
        shape, window, groups, kernel = ctx.told
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            return _differentiable(x, g, window, groups), None, None, None
        laid = g.to(x.dtype)
        if laid.stride() != x.stride():
            laid = torch.empty_like(x).copy_(laid)
        dx = torch.empty_like(x)
        if x.numel():
            kernel.backward(x, laid, dx, shape, window)
        return dx, None, None, None


def plain(x: Tensor, window: Window, groups: int) -> Tensor:
    """The formula in torch's operations, of any dtype and on any device; in float32 at least."""
    wide = x if x.dtype == torch.float64 else x.float()
    squares = wide.unflatten(1, (groups, x.shape[1] // groups)).square()
    channels, total = squares.shape[2], squares.clone()
    for offset in range(1, min(window.below, channels - 1) + 1):
        total[:, :, offset:] += squares[:, :, :-offset]
    for offset in range(1, min(window.above, channels - 1) + 1):
        total[:, :, :-offset] += squares[:, :, offset:]
    energy = total.flatten(1, 2)
    return (wide * (energy * window.factor + window.k).pow(-window.beta)).to(x.dtype)


def _differentiable(x: Tensor, g: Tensor, window: Window, groups: int) -> Tensor:
    """The gradient by ``x`` in operations that have gradients themselves."""
    (dx,) = torch.autograd.grad(plain(x, window, groups), x, g, create_graph=True)
    return dx
