"""A running average of the weights, which often judges better than the weights themselves."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Average:
    """Exponential moving average (EMA) of a network's weights (Polyak and Juditsky 1992).

    In its first steps it forgets faster, ``(1 + step) / (10 + step)`` in place of ``decay``, or the
    random weights of the start would weigh for long.

    Attributes:
        tensors: the average by name; what is no floating-point number is the newest.
        steps: how often it was moved.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors = {name: value.detach().clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Move a little towards ``weights``."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, average in self.tensors.items():
            if average.is_floating_point():
                average.lerp_(weights[name].detach(), 1 - decay)
            else:
                average.copy_(weights[name])
