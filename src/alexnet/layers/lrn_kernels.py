"""How local response normalization is computed: few passes over the memory.

A kernel reads a tensor as blocks of channels x places (:class:`Shape`) and works on one piece after
another that stays in the cache. Only the input is kept for the backward pass; sums and powers are
computed again, which costs less than to read them. :class:`Compiled` is C (``native/lrn.c``);
:class:`InPieces` is torch's own operations, for machines without a compiler. On a GPU it is Triton
(:mod:`alexnet.layers.lrn_triton`).
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from alexnet.layers.native import native
from alexnet.layers.reach import in_reach, triton_runs

PIECE = 3 << 15
"""Numbers that :class:`InPieces` works on at a time, six lines of 0.4 MB in float32. Smaller pieces
would stay in a faster cache, but start more operations than that is worth."""
ALONE = 12_000
"""Numbers that torch works on by one thread, square roots too, which it hands to MKL."""
SLOW = 5e-8
"""Seconds a number, ten times what is usual."""


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
            torch.div(work.wide.line, work.power.line, out=work.power.line)
            target.copy_(work.power.inner)

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Write the gradient by ``x`` into ``dx``."""
        factor = -2 * window.factor * window.beta
        for work, source, gradient, target in _work(shape, window, x, g, dx):
            work.take(source, apart=True)
            work.gradient.inner.copy_(gradient)
            wide, power = work.wide.line, work.power.line
            direct = work.gradient.line.div_(power)
            # Multiplied first: a number so small that its sum is zero nearly stays finite.
            products = torch.mul(direct, wide, out=power)
            ratios = torch.div(products, work.sums.total.line, out=work.squares.line)
            if not window.k:  # where a whole window is zero
                ratios.masked_fill_(wide == 0, 0)
            around = work.mirrored.add_up()
            total = torch.addcmul(direct, around, wide, value=factor, out=power)
            if window.rectify:
                total.masked_fill_(wide <= 0, 0)
            target.copy_(work.power.inner)


def _work(shape: Shape, window: Window, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Pieces of the tensors, views ``[blocks, channels, places]``, each with the memory for it.

    An operation on several threads waits for the last of them, which is not run for milliseconds
    where other programs keep the processors busy. After a piece that took so long they are small
    enough for torch to take one thread.
    """
    numbers = shape.channels * shape.places
    blocks, alone = (max(1, most // numbers) for most in (PIECE, ALONE))
    flat = [
        tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset()) for tensor in tensors
    ]
    whole = [tensor.view(shape.blocks, shape.channels, shape.places) for tensor in flat]
    done, size, work = 0, 0, None
    began = time.perf_counter()
    while done < shape.blocks:
        pieces = [tensor[done : done + blocks] for tensor in whole]
        if work is None or len(pieces[0]) != size:
            size = len(pieces[0])
            work = _Workspace(size, shape, window)
        yield work, *pieces
        done += size
        if time.perf_counter() - began > SLOW * numbers * done:
            blocks = min(blocks, alone)


class _Line:
    """Blocks one after another, with as many channels of nothing around each as a window reaches.

    So a channel's neighbors are a step away wherever it is, and an operation on all of it goes
    along one line.

    Attributes:
        line: all of it, ``[(gap + blocks * (channels + gap)) * places]``.
        inner: the blocks, ``[blocks, channels, places]``.
        gaps: the nothing, ``[blocks + 1, gap * places]``.
    """

    def __init__(self, blocks: int, shape: Shape, gap: int, value: float) -> None:
        size, step = gap * shape.places, (shape.channels + gap) * shape.places
        length = size + blocks * step
        self.line = torch.full((length,), value, dtype=torch.float32, device="cpu")
        whole = self.line[size:].view(blocks, shape.channels + gap, shape.places)
        self.inner = whole[:, : shape.channels]
        self.gaps = self.line.as_strided((blocks + 1, size), (step, 1))


class _Workspace:
    """Memory for the work on one piece, used again for the next; all views are made once.

    Attributes:
        wide: the input in float32; nothing is zero.
        gradient: for the gradient, the same way.
        squares: ``factor`` times the input's squares, each with its share of ``k``, as nothing has:
            the sum over a window is all of it. Then for what comes between.
        power: ``sums ^ beta``.
        sums: of ``squares``, over windows.
        mirrored: the same over the opposite windows.
    """

    def __init__(self, blocks: int, shape: Shape, window: Window) -> None:
        self.window, (below, above) = window, (window.below, window.above)
        gap, width = max(below, above), below + above + 1
        self.share = torch.tensor(window.k / width, dtype=torch.float32, device="cpu")
        self.wide, self.gradient = (_Line(blocks, shape, gap, 0.0) for _ in range(2))
        self.squares, self.power, *others = (
            _Line(blocks, shape, gap, 1.0) for _ in range(2 + width.bit_length())
        )
        self.sums = _Sums(self.squares, others, below, above, shape.places)
        self.mirrored = _Sums(self.squares, others, above, below, shape.places)

    def take(self, source: Tensor, *, apart: bool = False) -> None:
        """Set ``wide``, ``sums`` and ``power`` from a piece of the input.

        With ``apart`` the gaps of those hold numbers, whatever is beside them: a gradient that is
        zero there stays so when it is divided.
        """
        self.wide.inner.copy_(source)
        wide, squares, power = self.wide.line, self.squares.line, self.power.line
        if self.window.rectify:
            wide.clamp_min_(0)
        torch.addcmul(self.share, wide, wide, value=self.window.factor, out=squares)
        sums = self.sums.add_up()
        if apart:
            self.sums.total.gaps.fill_(1.0)
        if self.window.beta != 0.75:
            torch.pow(sums, self.window.beta, out=power)
            return
        # The power 1/2 is a square root; torch.sqrt goes through MKL, slow on some processors.
        root = torch.pow(sums, 0.5, out=power)
        root.mul_(torch.pow(root, 0.5, out=squares))


class _Sums:
    """Sums over windows, by sums of two, of four and so on.

    A window of 5 is a channel and a sum of 4 beside it: three additions in place of four.

    Args:
        terms: what is added up.
        memory: for those sums, and one more.
        below: channels of a window before its own.
        above: channels behind.
        places: numbers a channel.

    Attributes:
        total: the sums; in its gaps anything.
    """

    def __init__(
        self, terms: _Line, memory: Sequence[_Line], below: int, above: int, places: int
    ) -> None:
        width, length = below + above + 1, len(terms.line)
        middle = slice(below * places, length - above * places)
        self.steps: list[Callable[[], Tensor]] = []
        parts, done, sums = [], 0, terms
        for power in range(width.bit_length()):
            reach = 1 << power
            if power:
                end, step = max(0, length - (reach - 1) * places), (reach >> 1) * places
                pair, sums = (sums.line[:end], sums.line[step : step + end]), memory[power - 1]
                self.steps.append(functools.partial(torch.add, *pair, out=sums.line[:end]))
            if width & reach:
                shift = (done - below) * places
                parts.append((sums, sums.line[middle.start + shift : middle.stop + shift]))
                done += reach
        self.total = next(one for one in memory if all(one is not part for part, _ in parts))
        target = self.total.line[middle]
        _, first = parts[0]
        if len(parts) == 1:
            self.steps.append(functools.partial(target.copy_, first))
        for _, part in parts[1:]:
            self.steps.append(functools.partial(torch.add, first, part, out=target))
            first = target

    def add_up(self) -> Tensor:
        """Compute them, one line."""
        for step in self.steps:
            step()
        return self.total.line


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
