"""Whether code of our own can work on a tensor in place of torch's operations."""

from __future__ import annotations

import functools

import torch
from torch.utils._triton import has_triton


def in_reach(x: torch.Tensor, device: str = "cpu") -> bool:
    """Whether code of our own may work on ``x``: there, neither traced nor transformed.

    Its gradients are those that ``backward`` asks for, not :mod:`torch.func`'s or forward ones.
    """
    return (
        type(x) in (torch.Tensor, torch.nn.Parameter)
        and x.device.type == device
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and torch.autograd.forward_ad._current_level < 0
        and not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    )


@functools.cache
def triton_runs() -> bool:
    """Whether Triton is installed and knows this machine's GPU."""
    return bool(has_triton())
