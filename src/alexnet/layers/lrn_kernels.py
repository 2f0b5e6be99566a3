"""How local response normalization is computed: few passes over the memory.

A kernel reads a tensor as blocks of channels x places (:class:`Shape`) and works on one piece after
another that stays in the cache. Only the input is kept for the backward pass; sums and powers are
computed again, which costs less than to read them. :class:`Compiled` is C (``native/lrn.c``);
:mod:`alexnet.layers.lrn_pieces` is torch's own operations, for machines without a compiler, and
:mod:`alexnet.layers.lrn_triton` what a GPU has.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from alexnet.layers.reach import in_reach, triton_runs
from alexnet.native import native


@dataclass(frozen=True)
class Window:
    """The formula: ``x[i] * (k + factor * sum of x[j]^2, i-below <= j <= i+above) ^ -beta``.

    With ``rectify`` it is that of ``max(x, 0)``.
    """

    below: int
    above: int
    factor: float
    beta: float
    k: float
    rectify: bool = False


@dataclass(frozen=True)
class Shape:
    """A tensor in memory: ``blocks`` blocks of ``channels`` x ``places`` numbers."""

    blocks: int
    channels: int
    places: int


class Kernel(Protocol):
    """Computes float32 and bfloat16 at least; what it is given lies in memory as ``Shape`` says."""

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
            window.factor, window.beta, window.k, window.rectify, torch.get_num_threads(),
        )  # fmt: skip
        places = [ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]
        if getattr(self.library, f"lrn_{name}_{kind}")(*places, ctypes.byref(told)):
            raise MemoryError("no memory for local response normalization")


class _Told(ctypes.Structure):
    """``Shape`` of ``native/lrn.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("blocks", "channels", "places", "below", "above")),
        *((name, ctypes.c_float) for name in ("factor", "beta", "k")),
        ("rectify", ctypes.c_int),
        ("threads", ctypes.c_int),
    )


class ShapesOnly:
    """Computes nothing: for tensors without numbers, to see what a network keeps."""

    def forward(self, x: Tensor, y: Tensor, shape: Shape, window: Window) -> None:
        """Leave ``y``."""

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Leave ``dx``."""


@functools.cache
def best_kernel() -> Kernel:
    """The compiled one where there is a compiler."""
    library = native().library
    if library is not None:
        return Compiled(library)
    from alexnet.layers.lrn_pieces import InPieces

    return InPieces()


@functools.cache
def gpu_kernel() -> Kernel | None:
    """Triton's, where it is installed and knows this machine's GPU."""
    if not triton_runs():
        return None
    from alexnet.layers.lrn_triton import Triton

    return Triton()


def kernel_for(x: Tensor) -> Kernel | None:
    """What computes ``x``: float32 or bfloat16, on a GPU float16 too, neither traced nor mapped."""
    if torch.compiler.is_compiling():
        return None
    if x.device.type == "cuda":
        narrow = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        return gpu_kernel() if narrow and in_reach(x, "cuda") else None
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return None
    if type(x).__name__ == "FakeTensor":
        return ShapesOnly()
    return best_kernel() if in_reach(x) else None


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
    if window.rectify:
        wide = wide.relu()
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
