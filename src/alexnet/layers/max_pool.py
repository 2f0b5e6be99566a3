"""Max-pooling that remembers one byte a window: where its largest number was.

Torch keeps that place in eight bytes, and the pooled map as well, and reads and clears them on the
way back. Here (``native/maxpool.c``; on a GPU :mod:`alexnet.layers.max_pool_triton`) a pooling
layer of AlexNet takes a third of the time and an eighth of the memory that is kept. Where neither
can be had, and for what the kernels do not do, torch's own is used; all give the same numbers.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.layers.reach import in_reach, triton_runs
from alexnet.native import native

_LANES = 16  # channels that a vector of the widest processor holds
_LARGEST = 15  # side of a window whose places a byte can number
_KINDS = {torch.float32: "float", torch.bfloat16: "bf16"}
_ON_GPU = (*_KINDS, torch.float16)


class MaxPool2d(nn.MaxPool2d):
    """A drop-in for ``torch.nn.MaxPool2d``, faster for maps in ``channels_last``.

    Input ``[N, C, H, W]``, output ``[N, C, h, w]``. Overlapping pooling, the paper's, is
    ``MaxPool2d(3, 2)`` (Krizhevsky et al. 2012, section 3.4).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Pool ``input``."""
        size, stride = self.kernel_size, self.stride
        plain = (self.padding, self.dilation, self.return_indices) == (0, 1, False)
        squares = isinstance(size, int) and isinstance(stride, int) and size <= _LARGEST
        pooled: Tensor
        if plain and squares and _suits(input, size):
            pooled = _Pooled.apply(input, size, stride, self.ceil_mode)
        else:
            pooled = super().forward(input)
        return pooled


def _suits(x: Tensor, size: int) -> bool:
    """Whether the kernel reads ``x`` as it lies in memory, with windows of ``size``."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False  # what is exported is made of torch's operations
    if (
        x.dim() != 4
        or x.dtype not in (_ON_GPU if x.is_cuda else _KINDS)
        or x.shape[1] < _LANES
        or min(x.shape[2:]) < size
        or not x.numel()
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return False
    if type(x).__name__ == "FakeTensor":  # without numbers, to see what a network keeps
        return x.device.type == "cpu" and native().library is not None
    if x.is_cuda:
        return in_reach(x, "cuda") and triton_runs()
    return in_reach(x) and native().library is not None


class _Told(ctypes.Structure):
    """``Pool`` of ``native/maxpool.c``."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "count", "channels", "height", "width", "out_height", "out_width", "size", "stride",
            )
        ),
        ("threads", ctypes.c_int),
    )  # fmt: skip


def _call(name: str, like: Tensor, told: _Told, *tensors: Tensor | None) -> None:
    if type(like).__name__ == "FakeTensor":
        return
    if like.is_cuda:
        _on_gpu(name, told, *tensors)
        return
    places = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
    getattr(native().library, f"max_pool_{name}_{_KINDS[like.dtype]}")(*places, ctypes.byref(told))


def _on_gpu(name: str, told: _Told, *tensors: Tensor | None) -> None:
    from alexnet.layers import max_pool_triton

    sides = [getattr(told, side) for side in max_pool_triton.Pool.__dataclass_fields__]
    getattr(max_pool_triton, name)(max_pool_triton.Pool(*sides), *tensors)


def _windows(length: int, size: int, stride: int, ceil: bool) -> int:
    """How many begin within ``length``; with ``ceil`` the last may reach over its end."""
    count = (length - size + (stride - 1 if ceil else 0)) // stride + 1
    return count - 1 if (count - 1) * stride >= length else count


class _Pooled(torch.autograd.Function):
    """The kernel with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, stride: int, ceil: bool) -> Tensor:
        """Pool ``x`` ``[N, C, H, W]``; a byte a window is kept where a gradient may be wanted."""
        count, channels, height, width = x.shape
        down, across = (_windows(length, size, stride, ceil) for length in (height, width))
        y = _maps(x, torch.Size((count, channels, down, across)))
        index = torch.empty_like(y, dtype=torch.uint8) if ctx.needs_input_grad[0] else None
        told = _Told(
            count, channels, height, width, down, across, size, stride, torch.get_num_threads()
        )
        _call("forward", x, told, x, y, index)
        ctx.told, ctx.shape = told, x.shape
        if index is not None:
            ctx.save_for_backward(index)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient by ``x``."""
        (g,), (index,) = gradients, ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            return _scattered(g, index, ctx.shape, ctx.told), None, None, None
        g = g.contiguous(memory_format=torch.channels_last)
        dx = _maps(g, ctx.shape)
        _call("backward", g, ctx.told, g, index, dx)
        return dx, None, None, None


def _maps(like: Tensor, shape: torch.Size) -> Tensor:
    """Room for maps whose channels lie side by side."""
    layout = torch.channels_last
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def _scattered(g: Tensor, index: Tensor, shape: torch.Size, told: _Told) -> Tensor:
    """The gradient by the input in operations that have gradients themselves."""
    down, across = (torch.arange(n, device=g.device) for n in g.shape[2:])
    place = index.long()
    rows = down[:, None] * told.stride + place // told.size
    columns = across * told.stride + place % told.size
    flat = (rows * told.width + columns).flatten(2)
    return (
        g.new_zeros(*shape[:2], shape[2] * shape[3]).scatter_add(2, flat, g.flatten(2)).view(shape)
    )
