"""What a network's training step computes and keeps, counted layer by layer.

Nothing is computed to count it: the network runs on tensors that have shapes and no numbers.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from alexnet.errors import UsageError
from alexnet.models.registry import create_model
from alexnet.models.summary import layer_table
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_loss

FLOAT = 4
"""Bytes of a weight, a gradient and an optimizer's number: float32 in every precision."""
ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Precision -> bytes of an activation that a matrix product reads or writes."""
BUFFERS = {"sgd": 1, "adamw": 2}
"""Optimizer -> float32 numbers that it keeps for a weight: momentum, or two moments."""


@dataclass(frozen=True)
class Layer:
    """One row of the layer table, in a training step.

    Attributes:
        name: of the module.
        parameters: weights and biases.
        outputs: numbers that it hands on for one picture.
        macs: multiplications of the forward pass, one picture.
        backward_macs: of the backward pass: as many for the gradient of the weights, and as many
            again for that of the input, which the first layer does not need.
        saved: bytes kept for the backward pass for one picture.
        saved_once: bytes kept whatever the batch: weights cast to a lower precision.
    """

    name: str
    parameters: int
    outputs: int
    macs: int
    backward_macs: int
    saved: int
    saved_once: int


@dataclass(frozen=True)
class Counts:
    """A network's training step.

    Attributes:
        model: its name.
        precision: what matrix products are computed in.
        layers: input to output.
        groups: towers that its grouped convolutions make; 1 where there are none.
    """

    model: str
    precision: str
    layers: tuple[Layer, ...]
    groups: int

    @property
    def parameters(self) -> int:
        """All weights and biases."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiplications of one picture, forward and backward."""
        return sum(layer.macs + layer.backward_macs for layer in self.layers)

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return ELEMENT[self.precision]

    def layer(self, name: str) -> Layer:
        """The layer called ``name``."""
        return next(layer for layer in self.layers if layer.name == name)

    def before(self, name: str) -> tuple[Layer, ...]:
        """The layers before ``name``; the output of the last is what it reads."""
        return self.layers[: self.layers.index(self.layer(name))]

    def has(self, *names: str) -> bool:
        """Whether there are layers of all these names."""
        return set(names) <= {layer.name for layer in self.layers}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "model": self.model,
            "precision": self.precision,
            "parameters": self.parameters,
            "macs": {
                "forward": sum(layer.macs for layer in self.layers),
                "backward": sum(layer.backward_macs for layer in self.layers),
            },
            "layers": [vars(layer) for layer in self.layers],
        }


def count(model: str, precision: str = "fp32", **arguments: Any) -> Counts:
    """Count a network's training step.

    Args:
        model: as in :func:`alexnet.create_model`.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        arguments: of the network.

    Raises:
        UsageError: an unknown network, argument or precision.
    """
    if precision not in ELEMENT:
        raise UsageError(f"unknown precision {precision!r}: choose {', '.join(ELEMENT)}")
    with torch.device("meta"):
        network = create_model(model, **arguments)
    shape = network.__dict__["pretrained_cfg"]["input_size"]
    rows = layer_table(network, shape)
    names = [row.name for row in rows]
    two, three = (saved_bytes(network, size, shape, precision, names) for size in (2, 3))
    first = next(row.name for row in rows if row.macs)
    layers = []
    for row in rows:
        side = [int(part) for part in row.size.split("x")] if row.size else [0]
        each = three.get(row.name, 0) - two.get(row.name, 0)
        layers.append(
            Layer(
                name=row.name,
                parameters=row.parameters,
                outputs=row.maps * torch.Size(side).numel(),
                macs=row.macs,
                backward_macs=row.macs * (1 if row.name == first else 2),
                saved=each,
                saved_once=two.get(row.name, 0) - 2 * each,
            )
        )
    groups = max((row.groups for row in rows if row.kind == "convolution"), default=1)
    return Counts(model, precision, tuple(layers), groups)


def saved_bytes(
    network: nn.Module, batch_size: int, shape: tuple[int, ...], precision: str, names: list[str]
) -> dict[str, int]:
    """Bytes that autograd keeps from a forward pass and its loss, by the layer that kept them.

    A tensor that several operations keep counts once, for the first; parameters do not count. What
    follows a layer without a row of its own (activation, dropout) belongs to it.

    Args:
        network: on torch's ``meta`` device; it is left as it is.
        batch_size: pictures.
        shape: of one picture.
        precision: as in :func:`count`.
        names: the modules that are layers.
    """
    current = names[0]
    found: dict[int, tuple[str, torch.UntypedStorage]] = {}

    def enter(name: str) -> Any:
        def hook(*_: object) -> None:
            nonlocal current
            current = name

        return hook

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found.setdefault(storage._cdata, (current, storage))
        return tensor

    with _shadow(network) as shadow:
        own = {p.untyped_storage()._cdata for p in shadow.parameters()}
        for name in names:
            if name in dict(shadow.named_modules()):
                shadow.get_submodule(name).register_forward_pre_hook(enter(name))
        inputs = torch.empty(batch_size, *shape)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            with _autocast(precision):
                logits = shadow(inputs)
            loss_of = build_loss(shadow, TrainingConfig(), torch.ones(logits.shape[1]))
            loss_of(logits, torch.zeros(batch_size, dtype=torch.long))
        totals: dict[str, int] = {}
        for key, (name, storage) in found.items():
            if key not in own:
                totals[name] = totals.get(name, 0) + storage.nbytes()
    return totals


@contextlib.contextmanager
def _shadow(network: nn.Module) -> Iterator[nn.Module]:
    """A copy of ``network`` for a processor, with shapes and no numbers, in training mode."""
    shadow = copy.deepcopy(network)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield shadow.to_empty(device="cpu").train()


def _autocast(precision: str) -> contextlib.AbstractContextManager[Any]:
    # A processor has no fp16 autocast that all operations take; bf16 has the same sizes.
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast("cpu")
