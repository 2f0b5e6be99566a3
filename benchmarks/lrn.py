"""Local response normalization against ``torch.nn.LocalResponseNorm``.

Claims, forward and backward of the paper's two layers at batch 64 (64x96x55x55 and 64x256x27x27)
together, against torch's module in float32 as it comes, in the better of two layouts: by the path
that is taken by default here, at least 20 times faster in bfloat16 and 8 times in float32; without
a compiler, at least 10 and 5 times. Beside them, without a claim: that module with freed memory
kept, as the package has it, and compiled by ``torch.compile`` as well, where there is a compiler.
The floor is the bytes that must move: read x, write y; read x and the gradient, write the other
gradient, at the speed of a copy measured in the same run.

    python benchmarks/lrn.py
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import _record
import torch
from _alternate import Side, alternate, best, ratio, serve, spread
from torch import Tensor, nn

from alexnet.layers.lrn_kernels import Compiled, Kernel, KernelNorm, Window, best_kernel
from alexnet.layers.lrn_pieces import InPieces
from alexnet.runtime import keep_freed_memory

SHAPES = ((64, 96, 55, 55), (64, 256, 27, 27))
WINDOW = Window(below=2, above=2, factor=1e-4, beta=0.75, k=2.0)
PAIRS = 5
LEAST = {"default bf16": 20.0, "default fp32": 8.0, "pieces bf16": 10.0, "pieces fp32": 5.0}

SIDES = ("torch", "torch, memory kept", "torch, compiled", "ours")
"""As torch comes; with freed memory kept by the process; compiled as well; the package."""

Norm = Callable[[Tensor], Tensor]


def ours(kernel: Kernel) -> Norm:
    """The layer by one kernel."""
    return lambda x: KernelNorm.apply(x, WINDOW, 1, kernel)


def tensors(dtype: torch.dtype, layout: torch.memory_format) -> list[tuple[Tensor, Tensor]]:
    """An input and a gradient of each shape."""
    made = []
    for shape in SHAPES:
        x, g = (torch.randn(shape).to(dtype).contiguous(memory_format=layout) for _ in range(2))
        made.append((x.requires_grad_(), g))
    return made


def seconds(norm: Norm, pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Forward and backward of all shapes."""
    began = time.perf_counter()
    for x, g in pairs:
        torch.autograd.grad(norm(x), x, g)
    return time.perf_counter() - began


def copy_rate() -> float:
    """Bytes a second that a copy of 256 MB reads and writes."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - began)
    return 2 * source.numel() * 4 / min(times)


def arms(side: str) -> dict[str, Callable[[], float]]:
    """What one process measures: ``"torch"`` as it comes, ``"ours"`` with the memory kept."""
    torch.manual_seed(0)
    last, first, bf16, fp32 = (
        torch.channels_last, torch.contiguous_format, torch.bfloat16, torch.float32,
    )  # fmt: skip
    stock = nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
    if side != "ours":
        if side != "torch":
            keep_freed_memory()
        if side == "torch, compiled":
            stock.compile()
        chosen: dict[str, tuple[Norm, torch.dtype, torch.memory_format]] = {
            f"{side}, fp32": (stock, fp32, first),
            f"{side}, fp32 channels_last": (stock, fp32, last),
        }
    else:
        keep_freed_memory()
        chosen = {
            "default bf16": (ours(best_kernel()), bf16, last),
            "default fp32": (ours(best_kernel()), fp32, last),
            "pieces bf16": (ours(InPieces()), bf16, last),
            "pieces fp32": (ours(InPieces()), fp32, last),
            "default bf16, channels first": (ours(best_kernel()), bf16, first),
        }
    return {
        name: functools.partial(seconds, norm, tensors(dtype, layout))
        for name, (norm, dtype, layout) in chosen.items()
    }


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, spreads and ratios, and whether the claims hold."""
    ratios: dict[str, dict[str, Any]] = {}
    for side in SIDES[:3]:
        if f"{side}, fp32" not in times:
            continue
        theirs = best(times[f"{side}, fp32"], times[f"{side}, fp32 channels_last"])
        ratios[side] = {
            name: ratio(theirs, values)
            for name, values in times.items()
            if not name.startswith("torch")
        }
    numbers, rate = sum(math.prod(shape) for shape in SHAPES), copy_rate()
    return {
        "claim": f"times torch's fp32 as it comes: at least {LEAST}",
        "default_kernel": type(best_kernel()).__name__,
        "pairs": PAIRS,
        "milliseconds": {
            name: spread([1e3 * value for value in values]) for name, values in times.items()
        },
        "times_faster_than": ratios,
        "floor_milliseconds": {
            "bf16": round(1e3 * 5 * 2 * numbers / rate, 1),
            "fp32": round(1e3 * 5 * 4 * numbers / rate, 1),
        },
        "copied_gigabytes_a_second": round(rate / 1e9, 1),
        "holds": all(ratios["torch"][name]["median"] >= least for name, least in LEAST.items()),
    }


def main() -> int:
    """Measure; 1 when a claim does not hold."""
    if len(sys.argv) > 1:
        serve(arms(sys.argv[1]))
        return 0
    compiles = isinstance(best_kernel(), Compiled)
    asked = [side for side in SIDES if compiles or side != "torch, compiled"]
    sides = {side: Side([sys.executable, __file__, side]) for side in asked}
    result = summary(alternate(sides, PAIRS))
    _record.write(__file__, ("torch",), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
