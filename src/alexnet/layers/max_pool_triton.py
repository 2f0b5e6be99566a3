"""Max-pooling on a GPU, maps in channels_last: one pass over the memory a direction, in Triton.

Torch keeps eight bytes a window and clears the gradient before it adds to it. Here one byte a
window is kept, and each place of the input gathers what the few windows over it send back, always
in the same order. Import it only where Triton is installed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_AT_ONCE = 1024  # numbers of a program
_INT32 = 1 << 31

jit: Any = triton.jit


@dataclass(frozen=True)
class Pool:
    """Sides of the maps and of the square windows."""

    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    size: int
    stride: int


def forward(pool: Pool, x: Tensor, y: Tensor, index: Tensor | None) -> None:
    """Write the largest of each window into ``y``, and its place in the window into ``index``."""
    _launch(_forward, pool, y.numel(), x, y, y if index is None else index, kept=index is not None)


def backward(pool: Pool, g: Tensor, index: Tensor, dx: Tensor) -> None:
    """Write the gradient by the input into ``dx``."""
    covering = -(-pool.size // pool.stride)  # windows over a place, along a side
    _launch(_backward, pool, dx.numel(), g, index, dx, covering=covering)


def _launch(kernel: Any, pool: Pool, count: int, *tensors: Tensor, **more: Any) -> None:
    largest = max(tensor.numel() for tensor in tensors)
    with torch.cuda.device_of(tensors[0]):
        kernel[(triton.cdiv(count, _AT_ONCE),)](
            *tensors, count, channels=pool.channels, height=pool.height, width=pool.width,
            out_height=pool.out_height, out_width=pool.out_width, size=pool.size,
            stride=pool.stride, wide=largest >= _INT32 - _AT_ONCE, at_once=_AT_ONCE, **more,
        )  # fmt: skip


@jit
def _places(
    channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr, wide: tl.constexpr,
    at_once: tl.constexpr,
):  # fmt: skip
    """The numbers of this program: place in memory, picture, row, column, channel."""
    first = tl.program_id(0)
    if wide:
        first = first.to(tl.int64)
    place = first * at_once + tl.arange(0, at_once)
    column = place // channels % width
    row = place // (channels * width) % height
    return place, place // (channels * width * height), row, column, place % channels


@jit
def _forward(
    x, y, index, count, channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
    out_height: tl.constexpr, out_width: tl.constexpr, size: tl.constexpr, stride: tl.constexpr,
    wide: tl.constexpr, at_once: tl.constexpr, kept: tl.constexpr,
):  # fmt: skip
    place, picture, row, column, channel = _places(channels, out_height, out_width, wide, at_once)
    best = tl.full((at_once,), float("-inf"), tl.float32)
    where = tl.zeros((at_once,), tl.int32)
    for down in tl.static_range(size):
        for across in tl.static_range(size):
            h, w = row * stride + down, column * stride + across
            there = (place < count) & (h < height) & (w < width)
            source = ((picture * height + h) * width + w) * channels + channel
            value = tl.load(x + source, there, float("-inf")).to(tl.float32)
            better = (value > best) | (value != value)  # NaN is the largest, as in torch
            best = tl.where(better, value, best)
            where = tl.where(better, down * size + across, where)
    tl.store(y + place, best.to(y.dtype.element_ty), place < count)
    if kept:
        tl.store(index + place, where.to(tl.uint8), place < count)


@jit
def _backward(
    g, index, dx, count, channels: tl.constexpr, height: tl.constexpr, width: tl.constexpr,
    out_height: tl.constexpr, out_width: tl.constexpr, size: tl.constexpr, stride: tl.constexpr,
    wide: tl.constexpr, at_once: tl.constexpr, covering: tl.constexpr,
):  # fmt: skip
    place, picture, row, column, channel = _places(channels, height, width, wide, at_once)
    total = tl.zeros((at_once,), tl.float32)
    for up in tl.static_range(covering):
        for left in tl.static_range(covering):
            oh, ow = row // stride - up, column // stride - left
            down, across = row - oh * stride, column - ow * stride
            there = (place < count) & (oh >= 0) & (oh < out_height) & (down < size)
            there = there & (ow >= 0) & (ow < out_width) & (across < size)
            source = ((picture * out_height + oh) * out_width + ow) * channels + channel
            chosen = tl.load(index + source, there, 255).to(tl.int32)
            there = there & (chosen == down * size + across)
            total += tl.load(g + source, there, 0.0).to(tl.float32)
    tl.store(dx + place, total.to(dx.dtype.element_ty), place < count)
