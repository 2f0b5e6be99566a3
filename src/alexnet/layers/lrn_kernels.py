"""How local response normalization is computed: few passes over the memory.

A kernel reads a tensor as blocks of channels x places (:class:`Shape`) and works on one piece after
another that stays in the cache. Only the input is kept for the backward pass; sums and powers are
computed again, which costs less than to read them. :class:`Compiled` is C (``native/lrn.c``);
:class:`InPieces` is torch's own operations, for machines without a compiler. On a GPU it is Triton
(:mod:`alexnet.layers.lrn_triton`).
"""

from __future__ import annotations

import copy
import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from alexnet.layers.native import native
from alexnet.layers.reach import in_reach, triton_runs

PIECE = 3 << 16
"""Numbers that :class:`InPieces` works on at a time, 0.75 MB of float32. Smaller pieces would stay
in a faster cache, but start more operations than that is worth."""


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


class InPieces:
    """Torch's operations on pieces that stay in the cache, in float32."""

    def forward(self, x: Tensor, y: Tensor, shape: Shape, window: Window) -> None:
        """Write the normalized ``x`` into ``y``."""
        for work, source, target in _work(shape, window, x, y):
            work.take(source)
            target.copy_(work.wide.div_(work.power))

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Write the gradient by ``x`` into ``dx``."""
        for work, source, gradient, target in _work(shape, window, x, g, dx):
            work.take(source)
            direct = work.spare.copy_(gradient).div_(work.power)
            # Multiplied first: a number so small that its sum is zero nearly stays finite.
            ratios = torch.mul(direct, work.wide, out=work.power)
            torch.div(ratios, work.sums, out=work.ratios.inner)
            if not window.k:  # where a whole window is zero
                work.ratios.inner.masked_fill_(work.wide == 0, 0)
            work.ratios.add_up(work.sums)
            direct.addcmul_(work.sums, work.wide, value=-2 * window.factor * window.beta)
            if window.rectify:
                direct.masked_fill_(work.wide <= 0, 0)
            target.copy_(direct)


def _work(shape: Shape, window: Window, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Pieces of the tensors, views ``[blocks, channels, places]``, each with the memory for it."""
    blocks = min(shape.blocks, max(1, PIECE // (shape.channels * shape.places)))
    whole = work = _Workspace(blocks, shape, window)
    views = (
        tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset())
        .view(shape.blocks, shape.channels, shape.places)
        .split(blocks)
        for tensor in tensors
    )
    for pieces in zip(*views, strict=True):
        if len(pieces[0]) != blocks:
            work = whole.first(len(pieces[0]))
        yield work, *pieces


class _Workspace:
    """Memory for the work on one piece, used again for the next.

    Attributes:
        wide: the input in float32.
        sums: ``k + factor * sum``.
        power: ``sums ^ beta``.
        spare: for what comes between.
        squares: ``factor`` times the input's squares, each with its share of ``k``, as the
            channels around them have: the sum over a window is all of it.
        ratios: gradient times input over the sum, padded for the opposite windows.
    """

    def __init__(self, blocks: int, shape: Shape, window: Window) -> None:
        self.window = window
        size = (blocks, shape.channels, shape.places)
        self.wide, self.sums, self.power, self.spare = (_empty(*size) for _ in range(4))
        share = window.k / (window.below + window.above + 1)
        self.share = torch.tensor(share, dtype=torch.float32, device="cpu")
        self.squares = _Padded(size, window.below, window.above, self.share.item())
        self.ratios = _Padded(size, window.above, window.below, 0.0)

    def first(self, blocks: int) -> _Workspace:
        """The memory of so many blocks of it."""
        part = copy.copy(self)
        for name in ("wide", "sums", "power", "spare"):
            setattr(part, name, getattr(self, name)[:blocks])
        part.squares, part.ratios = self.squares.first(blocks), self.ratios.first(blocks)
        return part

    def take(self, source: Tensor) -> None:
        """Set ``wide``, ``sums`` and ``power`` from a piece of the input."""
        self.wide.copy_(source)
        if self.window.rectify:
            self.wide.clamp_min_(0)
        factor = self.window.factor
        torch.addcmul(self.share, self.wide, self.wide, value=factor, out=self.squares.inner)
        self.squares.add_up(self.sums)
        if self.window.beta != 0.75:
            torch.pow(self.sums, self.window.beta, out=self.power)
            return
        # The power 1/2 is a square root; torch.sqrt goes through MKL, slow on some processors.
        root = torch.pow(self.sums, 0.5, out=self.power)
        root.mul_(torch.pow(root, 0.5, out=self.spare))


class _Padded:
    """Channels with the same number below and above, and memory for their sums over windows."""

    def __init__(self, size: tuple[int, int, int], below: int, above: int, around: float) -> None:
        blocks, self.channels, places = size
        self.below, self.window = below, below + above + 1
        self.memory = _empty(blocks, self.channels + self.window - 1, places)
        self.memory[:, :below] = around
        self.memory[:, below + self.channels :] = around
        doublings = range(self.window.bit_length() - 1)
        self.doubled = [torch.empty_like(self.memory) for _ in doublings]

    @property
    def inner(self) -> Tensor:
        """What is not around them."""
        return self.memory[:, self.below : self.below + self.channels]

    def first(self, blocks: int) -> _Padded:
        """The memory of so many blocks of it."""
        part = copy.copy(self)
        part.memory = self.memory[:blocks]
        part.doubled = [memory[:blocks] for memory in self.doubled]
        return part

    def add_up(self, out: Tensor) -> None:
        """Write the sums over the windows into ``out``, by sums of two, of four and so on.

        A window of 5 is a channel and a sum of 4 beside it: three additions in place of four.
        """
        parts, sums, done = [], self.memory, 0
        for power in range(self.window.bit_length()):
            reach = 1 << power
            if power:
                half = reach >> 1
                target = self.doubled[power - 1][:, : sums.shape[1] - half]
                sums = torch.add(sums[:, :-half], sums[:, half:], out=target)
            if self.window & reach:
                parts.append(sums[:, done : done + self.channels])
                done += reach
        if len(parts) == 1:
            out.copy_(parts[0])
            return
        torch.add(parts[0], parts[1], out=out)
        for part in parts[2:]:
            out.add_(part)


def _empty(*size: int) -> Tensor:
    """Memory in float32, whatever is the default where the network is."""
    return torch.empty(size, dtype=torch.float32, device="cpu")


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
    return InPieces() if library is None else Compiled(library)


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
