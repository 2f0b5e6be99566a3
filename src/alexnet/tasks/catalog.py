"""The facts of a network: what ``alexnet models`` and ``alexnet summary`` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from alexnet.errors import UsageError
from alexnet.models.registry import create_model, input_spec, list_models, model_entry
from alexnet.models.summary import LayerRow, count_parameters, layer_table
from alexnet.training.config import Config


def list_facts() -> list[dict[str, Any]]:
    """The facts of each of the package's networks as published, oldest first."""
    return [describe(name)[0] for name in list_models()]


def describe(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[LayerRow]]:
    """What a network is, and its layers.

    Args:
        name: as in :func:`alexnet.create_model`.
        num_classes: outputs; None is the published number.
        image_size: side of the input in pixels; None is the published one.
        settings: arguments of the network as ``"model.NAME"``; their values may be text.

    Returns:
        ``name``, ``year``, ``parameters`` (trainable), ``fixed_parameters``, ``macs`` (multiplies
        of convolutions and linear layers for one picture), ``input`` (channels, height, width),
        ``authors``, ``paper``, ``description``, ``layer_count``, and the rows of the layer table.

    Raises:
        UsageError: an unknown name, argument or value.
    """
    arguments = _model_arguments(settings or {})
    if image_size is not None:
        arguments["image_size"] = image_size
    entry = model_entry(name)
    spec = input_spec(name, arguments.get("image_size"), arguments.get("in_chans"))
    with torch.device("meta"):
        network = create_model(name, num_classes=num_classes, **arguments)
    rows = layer_table(network, spec)
    trainable, fixed = count_parameters(network)
    facts = {
        "name": name,
        "year": entry.year,
        "parameters": trainable,
        "fixed_parameters": fixed,
        "macs": sum(row.macs for row in rows),
        "input": [spec.channels, spec.size, spec.size],
        "layer_count": entry.layers,
        "authors": entry.authors,
        "paper": entry.paper,
        "description": entry.description,
    }
    return facts, rows


def _model_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    for setting in settings:
        if not setting.startswith("model."):
            raise UsageError(f"--set {setting} is not of the network: write model.NAME=VALUE")
    return dict(Config().override(settings).model)
