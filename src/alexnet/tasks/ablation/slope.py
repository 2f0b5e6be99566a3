"""How much of the gradient a network's activations pass on."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.inference_mode()
def mean_slope(network: nn.Module, inputs: Tensor) -> float | None:
    """Mean derivative of the tanh and ReLU units: 0 where all are saturated, or off.

    Args:
        network: any, in evaluation mode.
        inputs: ``[N, C, size, size]``, where the network is.

    Returns:
        0 to 1, over all units and pictures; None for a network without such units.
    """
    total, units = 0.0, 0

    def count(module: nn.Module, given: object, outputs: Tensor) -> None:
        nonlocal total, units
        slopes = 1 - outputs.square() if isinstance(module, nn.Tanh) else outputs > 0
        total += float(slopes.sum())
        units += outputs.numel()

    layers = [module for module in network.modules() if isinstance(module, nn.Tanh | nn.ReLU)]
    handles = [module.register_forward_hook(count) for module in layers]
    try:
        network(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return total / units if units else None
