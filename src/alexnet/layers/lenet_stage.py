"""LeNet's stage in one pass: a 5x5 convolution, a squashing function, the means of 2x2.

Torch's own operations take several times the arithmetic's time on maps as small as LeNet's. Where
there is a compiler, ``native/lenet.c`` does all three together, forward and backward; everywhere
else they are called one after another.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.layers.activation import ScaledTanh
from alexnet.layers.lenet import SparseConv2d
from alexnet.layers.reach import in_reach
from alexnet.native import native

SIDE = 5
SQUASHES: dict[type[nn.Module], int] = {nn.ReLU: 0, nn.Tanh: 1, ScaledTanh: 2, nn.Sigmoid: 3}
"""The numbers that ``native/lenet.c`` has for them."""
LEAST = 4
"""Pictures that it takes at once at least: it works on as many as a vector has numbers."""


def stage_means(x: Tensor, convolution: nn.Module, squash: nn.Module) -> Tensor:
    """``F.avg_pool2d(squash(convolution(x)), 2)``, in one pass where that can be done.

    Args:
        x: ``[N, I, H, W]``.
        convolution: 5x5, :class:`torch.nn.Conv2d` or :class:`SparseConv2d`.
        squash: one of :data:`SQUASHES`, or any other module.

    Returns:
        ``[N, O, (H - 4) // 2, (W - 4) // 2]`` for a convolution without padding.
    """
    if not _can_be_done(x, convolution, squash):
        return F.avg_pool2d(squash(convolution(x)), 2)
    sparse = isinstance(convolution, SparseConv2d)
    weight: Any = convolution.dense_weight() if sparse else convolution.weight
    # Copied here, where it is recorded: a gradient of the gradient goes through the copy.
    y: Tensor = _Stage.apply(x.contiguous(), weight.contiguous(), convolution.bias, squash)
    return y


def cover(x: Tensor, convolution: nn.Module) -> Tensor:
    """``convolution(x)``; a kernel as large as the map is a matrix product, which is faster.

    Args:
        x: ``[N, I, H, W]``.
        convolution: as C5 of LeNet-5.
    """
    if (
        type(convolution) is not nn.Conv2d
        or len(x) < LEAST
        or convolution.kernel_size != tuple(x.shape[2:])
        or (convolution.padding, convolution.groups) != ((0, 0), 1)
    ):
        return convolution(x)
    whole = F.linear(x.flatten(1), convolution.weight.flatten(1), convolution.bias)
    return whole[:, :, None, None]


def _can_be_done(x: Tensor, convolution: nn.Module, squash: nn.Module) -> bool:
    """Whether the kernel computes just this."""
    return (
        _is_plain_5x5(convolution)
        and type(squash) in SQUASHES
        and x.dim() == 4
        and min(x.shape[2:]) > SIDE
        and len(x) >= LEAST
        and all(_is_plain(t) for t in (x, convolution.weight, convolution.bias) if t is not None)
        and not torch.is_autocast_enabled("cpu")
        and in_reach(x)
        and native().library is not None
    )


def _is_plain(t: Any) -> bool:
    return type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 and t.is_cpu


def _is_plain_5x5(convolution: nn.Module) -> bool:
    if type(convolution) is SparseConv2d:
        return (convolution.kernel_size, convolution.stride) == (SIDE, 1)
    return type(convolution) is nn.Conv2d and (
        convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation,
        convolution.groups,
    ) == ((SIDE, SIDE), (1, 1), (0, 0), (1, 1), 1)  # fmt: skip


class _Told(ctypes.Structure):
    """``Stage`` of ``native/lenet.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("pictures", "inputs", "outputs", "height", "width")),
        ("squash", ctypes.c_int),
        ("threads", ctypes.c_int),
    )


class _Stage(torch.autograd.Function):
    """The kernel; keeps the input and the squashed maps."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, squash: nn.Module
    ) -> Tensor:
        """``[N, I, H, W]`` to ``[N, O, (H - 4) // 2, (W - 4) // 2]``."""
        pictures, inputs, height, width = x.shape
        told = _Told(
            pictures, inputs, len(weight), height, width, SQUASHES[type(squash)],
            _threads(),
        )  # fmt: skip
        maps = x.new_empty(_ask("stage_results", told))
        y = x.new_empty(pictures, len(weight), (height - SIDE + 1) // 2, (width - SIDE + 1) // 2)
        if pictures:
            _call("stage_forward", told, x, weight, bias, maps, y)
        ctx.save_for_backward(x, weight, bias, maps)
        ctx.told = told, squash
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by input, weights and biases."""
        x, weight, bias, maps = ctx.saved_tensors
        told, squash = ctx.told
        wanted = ctx.needs_input_grad
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            y = F.avg_pool2d(squash(F.conv2d(x, weight, bias)), 2)
            inputs = [t for t, w in zip((x, weight, bias), wanted, strict=False) if w]
            found = iter(torch.autograd.grad(y, inputs, gradients, create_graph=True))
            return *(next(found) if w else None for w in wanted[:3]), None
        dx = torch.empty_like(x) if wanted[0] else None
        if not len(x):
            return dx, torch.zeros_like(weight), None if bias is None else bias * 0, None
        dw, db = torch.empty_like(weight), x.new_empty(len(weight))
        g = gradients[0].contiguous()
        _call("stage_backward", told, x, weight, maps, g, dx, dw, db)
        return dx, dw, db if wanted[2] else None, None


@functools.cache
def _threads() -> int:
    """The processor's cores, or ``OMP_NUM_THREADS``; a thread that is busy is not waited for."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return int(told) if told.isdigit() and int(told) else cores or 1


def _ask(name: str, told: _Told) -> int:
    function = getattr(native().library, name)
    function.restype = ctypes.c_int64
    return int(function(ctypes.byref(told)))


def _call(name: str, told: _Told, *tensors: Tensor | None) -> None:
    places = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in tensors]
    if getattr(native().library, name)(*places, ctypes.byref(told)):
        raise MemoryError("no memory for LeNet's stage")
