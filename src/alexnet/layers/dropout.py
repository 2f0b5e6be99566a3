"""Dropout whose masks are a function of the seed and the step alone.

Krizhevsky et al. 2012, section 4.2: each unit is set to zero with probability 0.5.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from alexnet.chance import DROPOUT, GOLDEN, hash64, shifted, signed, stream_key
from alexnet.layers.choice import check_choice, check_probability

ScaledAt = Literal["training", "test"]


class Dropout(nn.Dropout):
    """Sets units to zero while training; a drop-in for ``torch.nn.Dropout``.

    On its own it draws from PyTorch's generator, as that does. A training gives it the numbers of
    the step and of the pictures (:func:`number_masks`): whether a unit is dropped is then a hash of
    seed, step, layer, picture and unit, so that it depends neither on how a batch is divided among
    processes nor on what was drawn before.

    Args:
        p: probability of dropping a unit.
        scaled_at: ``"training"`` divides the units that are left by ``1 - p``, as is the habit;
            ``"test"`` multiplies all units by ``1 - p`` in evaluation, as the paper has it. The
            two have the same expectation; the step sizes differ.
    """

    def __init__(self, p: float = 0.5, scaled_at: ScaledAt = "training") -> None:
        check_probability(dropout=p)
        check_choice("dropout_scaled_at", scaled_at, ("training", "test"))
        super().__init__(p)
        self.scaled_at: ScaledAt = scaled_at
        self._key: int | None = None
        self._rows: Tensor | None = None
        self.first_unit = 0
        """Number of the input's first unit, where a process has a part of the layer."""

    def number(self, key: int | None, rows: Tensor | None) -> None:
        """Take the masks from the stream ``key``; None draws from PyTorch's generator.

        Args:
            key: of seed, step and layer.
            rows: int64 ``[N]``, the place of each picture of the input in the step's batch.
        """
        self._key, self._rows = key, rows

    def forward(self, input: Tensor) -> Tensor:
        """Drop units of the input (``[N, units]``, or ``[N, ...]`` without numbers)."""
        x = input
        if not self.training:
            return x * (1 - self.p) if self.scaled_at == "test" and self.p else x
        if not self.p:
            return x
        kept = self._mask(x)
        return x * (kept / (1 - self.p) if self.scaled_at == "training" and self.p < 1 else kept)

    def _mask(self, x: Tensor) -> Tensor:
        """1 for each unit that is left and 0 for each that is dropped, in the dtype of ``x``."""
        if self._key is None or self._rows is None:
            return torch.empty_like(x).bernoulli_(1 - self.p)
        units = torch.arange(x[0].numel(), device=x.device) + self.first_unit
        pictures = hash64(self._key, self._rows.to(x.device, non_blocking=x.is_cuda))
        bits = hash64(0, pictures[:, None] + signed(GOLDEN) * (units + 1))
        kept = shifted(bits, 40) >= round(self.p * (1 << 24))  # the upper 24 bits, as a uniform
        return kept.to(x.dtype).view_as(x)

    def extra_repr(self) -> str:
        """The arguments, for ``print(network)``."""
        return f"p={self.p}, scaled_at={self.scaled_at!r}"


def number_masks(network: nn.Module, seed: int, step: int, rows: Tensor) -> None:
    """Tell every :class:`Dropout` of ``network`` which masks to draw.

    Args:
        network: as it is run in training.
        seed: of the training.
        step: its number from 0.
        rows: int64 ``[N]``, the place in the step's batch of each picture that is put in.
    """
    layers = [module for module in network.modules() if isinstance(module, Dropout)]
    for number, module in enumerate(layers):
        module.number(stream_key(DROPOUT, seed, step, number), rows)
