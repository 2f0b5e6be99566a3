"""Local response normalization by torch's own operations, for machines without a compiler.

A piece of the tensor at a time stays in the cache, in float32.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alexnet.layers.lrn_kernels import Shape, Window

PIECE = 3 << 15
"""Numbers that :class:`InPieces` works on at a time, six lines of 0.4 MB in float32. Smaller pieces
would stay in a faster cache, but start more operations than that is worth."""
ALONE = 12_000
"""Numbers that torch works on by one thread; of square roots 16,000, but no longer 30,000."""
SLOW = 5e-8
"""Seconds a number, ten times what is usual."""


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
