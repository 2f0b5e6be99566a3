"""The activations the papers compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "tanh", "scaled_tanh", "sigmoid"]


class ScaledTanh(nn.Module):
    """``1.7159 * tanh(2/3 * x)``: f(1) = 1 and f(-1) = -1 (LeCun et al. 1998, appendix A).

    Input and output of any shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Squash ``x`` elementwise."""
        return 1.7159 * torch.tanh(x * (2 / 3))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "scaled_tanh": ScaledTanh,
    "sigmoid": nn.Sigmoid,
}
