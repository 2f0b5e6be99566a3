"""A network layer by layer, as a lecture would show it: sizes, kernels, parameters, multiplies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.layers import (
    EuclideanRBF,
    LocallyConnected2d,
    LocalResponseNorm,
    ScaledTanh,
    SparseConv2d,
    SpatialResponseNorm,
    TrainableSubsampling,
    UnitBias,
)
from alexnet.models.contract import on_meta
from alexnet.spec import InputSpec

KINDS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str], ...] = (
    (nn.Conv2d, "convolution"),
    (SparseConv2d, "sparse convolution"),
    (LocallyConnected2d, "locally connected"),
    (nn.Linear, "fully connected"),
    (EuclideanRBF, "radial basis functions"),
    (TrainableSubsampling, "trainable sub-sampling"),
    (nn.MaxPool2d, "max pooling"),
    (nn.AvgPool2d, "average pooling"),
    (nn.AdaptiveAvgPool2d, "average pooling"),
    ((LocalResponseNorm, nn.LocalResponseNorm), "local response normalization"),
    (SpatialResponseNorm, "normalization within maps"),
    (nn.BatchNorm2d, "batch normalization"),
    (nn.LayerNorm, "layer normalization"),
)
ACTIVATION_NAMES: dict[type[nn.Module], str] = {
    nn.ReLU: "ReLU",
    nn.ReLU6: "ReLU6",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "SiLU",
    nn.GELU: "GELU",
    nn.Hardswish: "hard swish",
    nn.Hardsigmoid: "hard sigmoid",
    nn.LeakyReLU: "leaky ReLU",
    ScaledTanh: "1.7159 tanh(2x/3)",
}
INVISIBLE = (nn.Dropout, nn.Identity, nn.Flatten)
"""What changes neither size nor, at test time, numbers: no row of its own."""


@dataclass(frozen=True)
class LayerRow:
    """One row of the table.

    Attributes:
        name: of the module.
        kind: in words.
        maps: feature maps, or units of a fully connected layer.
        size: of a map, such as ``"55x55"``; ``"1x1"`` for units.
        kernel: such as ``"11x11"``; empty where there is none.
        stride: step of the kernel, 0 where there is none.
        padding: border of the input, in pixels.
        groups: parts that the maps are split into.
        activation: what follows, in words.
        parameters: trainable or not; the codes of a radial basis function output are none.
        macs: multiplications of one picture in convolutions and linear layers.
    """

    name: str
    kind: str
    maps: int
    size: str
    kernel: str = ""
    stride: int = 0
    padding: int = 0
    groups: int = 1
    activation: str = ""
    parameters: int = 0
    macs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dict(vars(self))


def layer_table(network: nn.Module, spec: InputSpec | tuple[int, int, int]) -> list[LayerRow]:
    """The rows of a network in the order in which they run.

    Nothing is computed: a copy of the network runs on torch's ``meta`` device. An activation is
    part of the row before it. Parameters that no row owns are in a last row, so that the sum is the
    network's.

    Args:
        network: one of ours, of torchvision or of timm; it may be on ``meta``.
        spec: its input, or ``(channels, height, width)``.
    """
    shape = (spec.channels, spec.size, spec.size) if isinstance(spec, InputSpec) else spec
    shadow = on_meta(network)
    table = _Table()
    handles = [
        module.register_forward_hook(table.record(name))
        for name, module in shadow.named_modules()
        if name and _is_layer(module)
    ]
    with torch.no_grad():
        shadow(torch.empty(1, *shape, device="meta"))
    for handle in handles:
        handle.remove()
    rest = sum(p.numel() for p in shadow.parameters() if id(p) not in table.counted)
    if rest:
        table.rows.append(
            {"name": "(others)", "kind": "parameters", "maps": 0, "size": "", "parameters": rest}
        )
    return [LayerRow(**row) for row in table.rows]


def count_parameters(network: nn.Module) -> tuple[int, int]:
    """``(trainable, fixed)``: fixed are frozen parameters and the codes of LeNet-5's output."""
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    codes = sum(m.codes.numel() for m in network.modules() if isinstance(m, EuclideanRBF))
    return trainable, frozen + codes


def count_macs(network: nn.Module, spec: InputSpec | tuple[int, int, int]) -> int:
    """Multiplications of one picture in convolutions and linear layers (and the RBF output)."""
    return sum(row.macs for row in layer_table(network, spec))


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a row: it has no parts, or numbers of its own."""
    return not list(module.children()) or bool(module._parameters)


class _Table:
    """Collects rows, as fields of :class:`LayerRow`, from hooks."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.counted: set[int] = set()
        self.border = 0

    def record(self, name: str) -> Any:
        """The hook of the module ``name``."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            del inputs
            result = output[0] if isinstance(output, tuple) else output
            if isinstance(result, Tensor):
                self.add(name, module, result)

        return hook

    def add(self, name: str, module: nn.Module, output: Tensor) -> None:
        """Add the row of one module, or put it into the row before."""
        fresh = [p for p in module.parameters(recurse=False) if id(p) not in self.counted]
        self.counted.update(id(p) for p in fresh)
        parameters = sum(p.numel() for p in fresh)
        if isinstance(module, nn.ConstantPad2d):
            self.border = int(module.padding[0])
        elif isinstance(module, UnitBias) and self.rows:
            self.rows[-1]["parameters"] += parameters
        elif type(module) in ACTIVATION_NAMES:
            if self.rows:
                self.rows[-1]["activation"] = ACTIVATION_NAMES[type(module)]
        elif not isinstance(module, INVISIBLE):
            row = _describe(module, output)
            if self.border:
                row["padding"], self.border = self.border, 0
            self.rows.append({"name": name, **row, "parameters": parameters})


def _describe(module: nn.Module, output: Tensor) -> dict[str, Any]:
    is_map = output.dim() == 4 and not isinstance(module, nn.Linear | nn.LayerNorm)
    maps = output.shape[1] if is_map else output.shape[-1]
    sides = output.shape[2:] if is_map else output.shape[1:-1]
    kind = next((text for types, text in KINDS if isinstance(module, types)), None)
    row: dict[str, Any] = {
        "kind": kind or type(module).__name__,
        "maps": maps,
        "size": "x".join(map(str, sides)) or "1x1",
        "macs": _macs(module, output),
    }
    kernel = getattr(module, "kernel_size", None)
    if isinstance(module, TrainableSubsampling):
        return {**row, "kernel": "2x2", "stride": 2}
    if isinstance(kernel, int | tuple):
        height, width = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        row["kernel"] = f"{height}x{width}"
        row["stride"] = _first(getattr(module, "stride", 1))
        row["padding"] = _first(getattr(module, "padding", 0))
    if isinstance(module, nn.Conv2d | LocalResponseNorm):
        row["groups"] = module.groups
    return row


def _macs(module: nn.Module, output: Tensor) -> int:
    """Multiplications that made ``output`` (of one picture)."""
    if isinstance(module, nn.Conv2d):
        return output.numel() * math.prod(module.weight.shape[1:])
    if isinstance(module, SparseConv2d):
        return module.connections * module.kernel_size**2 * math.prod(output.shape[2:])
    if isinstance(module, LocallyConnected2d):
        return output.numel() * module.weight.shape[2]
    if isinstance(module, nn.Linear | EuclideanRBF):
        return output.numel() * module.in_features
    if isinstance(module, nn.MultiheadAttention):  # its four projections
        return 4 * output.numel() * module.embed_dim
    return 0


def _first(value: Any) -> int:
    """A stride or padding as one number; torch keeps some as pairs, and ``"same"`` as a word."""
    value = value[0] if isinstance(value, tuple) else value
    return value if isinstance(value, int) else 0
