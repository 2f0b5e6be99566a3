"""Local response normalization on a GPU: one pass over the memory a direction, in Triton.

Torch's operations take some ten passes forward and twenty back. Here each number is read once from
memory, its neighbors in the window from the cache, and sums and powers are computed again on the
way back. Import it only where Triton is installed, which torch brings along on Linux.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from alexnet.layers.lrn_kernels import Shape, Window

_AT_ONCE = 1024  # numbers of a program
_INT32 = 1 << 31

jit: Any = triton.jit


class Triton:
    """A kernel as in :class:`alexnet.layers.lrn_kernels.Kernel`, of float32, bfloat16, float16."""

    def forward(self, x: Tensor, y: Tensor, shape: Shape, window: Window) -> None:
        """Write the normalized ``x`` into ``y``."""
        _launch(_forward, shape, window, x, y)

    def backward(self, x: Tensor, g: Tensor, dx: Tensor, shape: Shape, window: Window) -> None:
        """Write the gradient by ``x`` into ``dx``."""
        _launch(_backward, shape, window, x, g, dx)


def _launch(kernel: Any, shape: Shape, window: Window, x: Tensor, *others: Tensor) -> None:
    count = x.numel()
    grid = (triton.cdiv(count, _AT_ONCE),)
    with torch.cuda.device_of(x):
        kernel[grid](
            x, *others, count, window.factor, window.beta, window.k,
            channels=shape.channels, stride=shape.places, below=window.below, above=window.above,
            rectify=window.rectify, wide=count >= _INT32 - _AT_ONCE, at_once=_AT_ONCE,
            three_quarters=window.beta == 0.75,
        )  # fmt: skip


@jit
def _places(at_once: tl.constexpr, wide: tl.constexpr):
    """The numbers of this program, by their place in memory."""
    first = tl.program_id(0)
    if wide:
        first = first.to(tl.int64)
    return first * at_once + tl.arange(0, at_once)


@jit
def _read(
    x, place, channel, inside, offset: tl.constexpr,
    channels: tl.constexpr, stride: tl.constexpr, rectify: tl.constexpr,
):  # fmt: skip
    """The number ``offset`` channels further up, in float32; zero where there is none."""
    there = inside & (channel + offset >= 0) & (channel + offset < channels)
    value = tl.load(x + place + offset * stride, there, 0.0).to(tl.float32)
    if rectify:
        value = tl.where(value <= 0.0, 0.0, value)  # what is not a number stays so
    return value


@jit
def _sum(
    x, place, channel, inside, factor, k, offset: tl.constexpr, below: tl.constexpr,
    above: tl.constexpr, channels: tl.constexpr, stride: tl.constexpr, rectify: tl.constexpr,
):  # fmt: skip
    """``k + factor * sum`` over the window of the number ``offset`` channels further up."""
    total = tl.zeros_like(place).to(tl.float32)
    for step in tl.static_range(below + above + 1):
        value = _read(x, place, channel, inside, offset + step - below, channels, stride, rectify)
        total += value * value
    return k + factor * total


@jit
def _power(total, beta, three_quarters: tl.constexpr):
    """``total ^ -beta``."""
    if three_quarters:
        root = tl.rsqrt(total)
        return root * tl.sqrt(root)
    return tl.exp2(-beta * tl.log2(total))


@jit
def _next_power(total, beta, three_quarters: tl.constexpr):
    """``total ^ -(beta + 1)``; a multiplication takes less than a division."""
    if three_quarters:
        root = tl.rsqrt(total)
        return root * root * root * tl.sqrt(root)
    return tl.exp2(-(beta + 1.0) * tl.log2(total))


@jit
def _forward(
    x, y, count, factor, beta, k, channels: tl.constexpr, stride: tl.constexpr,
    below: tl.constexpr, above: tl.constexpr, rectify: tl.constexpr, wide: tl.constexpr,
    at_once: tl.constexpr, three_quarters: tl.constexpr,
):  # fmt: skip
    place = _places(at_once, wide)
    inside = place < count
    channel = (place // stride) % channels
    total = _sum(x, place, channel, inside, factor, k, 0, below, above, channels, stride, rectify)
    value = _read(x, place, channel, inside, 0, channels, stride, rectify)
    out = value * _power(total, beta, three_quarters)
    tl.store(y + place, out.to(y.dtype.element_ty), inside)


@jit
def _backward(
    x, g, dx, count, factor, beta, k, channels: tl.constexpr, stride: tl.constexpr,
    below: tl.constexpr, above: tl.constexpr, rectify: tl.constexpr, wide: tl.constexpr,
    at_once: tl.constexpr, three_quarters: tl.constexpr,
):  # fmt: skip
    place = _places(at_once, wide)
    inside = place < count
    channel = (place // stride) % channels
    value = _read(x, place, channel, inside, 0, channels, stride, rectify)
    total = _sum(x, place, channel, inside, factor, k, 0, below, above, channels, stride, rectify)
    gradient = _read(g, place, channel, inside, 0, channels, stride, False)
    direct = gradient * _power(total, beta, three_quarters)
    # Those whose windows this number is in lie the other way: from above below to below above.
    ratios = tl.zeros_like(total)
    for step in tl.static_range(below + above + 1):
        theirs = _sum(
            x, place, channel, inside, factor, k, step - above, below, above, channels, stride,
            rectify,
        )  # fmt: skip
        activation = _read(x, place, channel, inside, step - above, channels, stride, rectify)
        pull = _read(g, place, channel, inside, step - above, channels, stride, False)
        ratio = pull * activation * _next_power(theirs, beta, three_quarters)
        ratios += tl.where(activation == 0.0, 0.0, ratio)  # also beyond the last channel, with k=0
    slope = direct - 2.0 * factor * beta * value * ratios
    if rectify:
        slope = tl.where(value == 0.0, 0.0, slope)
    tl.store(dx + place, slope.to(dx.dtype.element_ty), inside)
