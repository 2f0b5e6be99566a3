"""What a device must keep in memory during a training step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alexnet.tasks.scaling.counts import BUFFERS, FLOAT, Counts
from alexnet.tasks.scaling.traffic import HEAD


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    The work space of the libraries, the gradients of activations on their way back, and the
    allocator's gaps come on top.

    Attributes:
        weights: in float32.
        gradients: of the weights.
        optimizer: momentum, or two moments.
        activations: what autograd keeps from the forward pass, the pictures and weights cast to a
            lower precision among it.
        exchanged: what other ranks send that is larger than what a rank has itself: with
            ``hybrid`` pool5 of everybody's pictures, and the sums of fc7.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    exchanged: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(vars(self).values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**vars(self), "total": self.total}


def share(scheme: str, counts: Counts, devices: int) -> float:
    """The part of the weights that a device has."""
    if devices == 1 or scheme == "ddp":
        return 1.0
    if scheme == "towers":
        return 0.5
    split = sum(counts.layer(name).parameters for name in HEAD)
    return (counts.parameters - split + split / devices) / counts.parameters


def memory(scheme: str, counts: Counts, devices: int, batch_size: int, optimizer: str) -> Memory:
    """What a device keeps.

    With ``hybrid`` and ``towers`` a device has a part of the units for the pictures of several
    devices, which comes to as many activations as with ``ddp``; what is gathered comes on top.

    Args:
        scheme: how devices share the work.
        counts: of the network.
        devices: how many.
        batch_size: pictures a device.
        optimizer: ``"sgd"`` or ``"adamw"``.
    """
    part = share(scheme, counts, devices)
    weights = round(counts.parameters * part) * FLOAT
    cast = sum(layer.saved_once for layer in counts.layers)
    activations = batch_size * sum(layer.saved for layer in counts.layers) + round(cast * part)
    return Memory(
        weights,
        weights,
        weights * BUFFERS[optimizer],
        activations,
        _exchanged(scheme, counts, devices, batch_size),
    )


def _exchanged(scheme: str, counts: Counts, devices: int, batch_size: int) -> int:
    """Bytes that are gathered from others: beyond a rank's own share."""
    if devices == 1 or scheme == "ddp":
        return 0
    if scheme == "hybrid":
        width = counts.before("fc6")[-1].outputs + counts.layer("fc7").outputs
        return (devices - 1) * batch_size * width * counts.element
    width = sum(counts.before(name)[-1].outputs for name in ("conv3", *HEAD))
    return batch_size * width * counts.element
