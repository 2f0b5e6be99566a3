"""Networks by name: list them, look one up, build one, adapt its input."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet.errors import UsageError, unknown_name
from alexnet.models.contract import Network
from alexnet.models.entries import ENTRIES, ModelEntry
from alexnet.models.external import external_entry, external_state
from alexnet.models.state import load_into
from alexnet.models.weights import Weights, find_weights, load_state
from alexnet.spec import InputSpec

_BY_NAME = {entry.name: entry for entry in ENTRIES}
LISTING = "'alexnet models' lists them"


def list_models() -> list[str]:
    """The names of the package's own networks, oldest first."""
    return list(_BY_NAME)


def model_entry(name: str) -> ModelEntry:
    """What is known of a network.

    Args:
        name: one of :func:`list_models`, ``"torchvision:NAME"`` or ``"timm:NAME"``.

    Raises:
        UsageError: no such network; the nearest name is suggested.
    """
    if ":" in name:
        return external_entry(name)
    if name not in _BY_NAME:
        raise unknown_name("model", name, _BY_NAME, LISTING)
    return _BY_NAME[name]


def create_model(
    name: str,
    weights: str | os.PathLike[str] | Weights | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build a network, in training mode as PyTorch's are.

    Args:
        name: one of :func:`list_models`, ``"torchvision:NAME"`` or ``"timm:NAME"``.
        weights: a name (``"imagenet1k"``), a file, a run folder, ``"hf:OWNER/NAME"``; None leaves
            the network as it starts. For other libraries' networks also ``"default"`` or their own
            names.
        num_classes: outputs; None is the weights' number, or else the network's own. 0 leaves the
            classifier out.
        in_chans: channels of the input; None is the network's own.
        arguments: of the network (``image_size``, ``dropout``, ...).

    Returns:
        The network, with ``model_name``, ``model_arguments`` (from which the same layers are built
        again) and ``pretrained_cfg``.

    Raises:
        UsageError: an unknown name, argument or value, or weights that do not fit.
        FailedError: weights could not be downloaded.
    """
    entry = model_entry(name)
    record = None if weights is None or ":" in name else find_weights(weights, name)
    state = None if weights is None else _state(name, weights)
    headless = num_classes == 0
    if not num_classes:
        num_classes = None if state is None else _count_classes(entry, record, state)
    given = {"num_classes": num_classes, "in_chans": in_chans}
    arguments |= {key: value for key, value in given.items() if value is not None}
    network = _build(entry, arguments)
    if state is not None:
        covers = "features" if record is not None and record.covers == "features" else "all"
        load_into(network, state, covers=covers, source=f"the weights {_title(weights)!r}")
    if headless:
        _drop_classifier(network)
    network.__dict__["pretrained_cfg"] = _pretrained_cfg(entry, network, record)
    return network


def input_spec(name: str, image_size: int | None = None, in_chans: int | None = None) -> InputSpec:
    """How pictures become the input of a network, adapted from how it was published.

    Args:
        name: as in :func:`create_model`.
        image_size: side of the input in pixels; the resize before the crop keeps its proportion.
        in_chans: 1 makes an RGB network's input gray, 3 a gray one's RGB; means and deviations are
            averaged over the channels.

    Raises:
        UsageError: an unknown name, or a number of channels that pictures do not have.
    """
    spec = model_entry(name).spec
    if in_chans is not None and in_chans != spec.channels:
        if in_chans not in (1, 3):
            raise UsageError(f"in_chans={in_chans}: pictures have 1 (gray) or 3 (RGB) channels")
        mean, std = (sum(values) / len(values) for values in (spec.mean, spec.std))
        spec = spec.replace(
            channel_order="gray" if in_chans == 1 else "rgb",
            mean=(mean,) * in_chans,
            std=(std,) * in_chans,
        )
    if image_size is not None and image_size != spec.size:
        crop = image_size - 2 * spec.pad
        if crop < 1:
            raise UsageError(f"image_size={image_size} is too small for {name}: make it larger")
        spec = spec.replace(size=image_size, resize=round(crop * spec.resize / spec.crop))
    return spec


def _build(entry: ModelEntry, arguments: dict[str, Any]) -> nn.Module:
    """Build the network, saying in one line what is wrong with an argument."""
    if ":" not in entry.name:
        target = getattr(entry.build, "func", entry.build)
        known = [name for name in inspect.signature(target).parameters if name != "self"]
        for argument in arguments:
            if argument not in known:
                raise unknown_name(f"argument of {entry.name}", argument, known)
    try:
        network = entry.build(**arguments)
    except UsageError:
        raise
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"cannot build {entry.name}: {reason}") from error
    if isinstance(network, Network):
        network.model_name = entry.name
    else:
        network.__dict__.update(model_name=entry.name, model_arguments=dict(arguments))
    return network


def _state(name: str, weights: str | os.PathLike[str] | Weights) -> dict[str, torch.Tensor]:
    """The weights' state dict; a bare word with another library's network is that library's."""
    is_word = isinstance(weights, str) and weights.replace("_", "").isalnum()
    if ":" in name and isinstance(weights, str) and is_word and not Path(weights).exists():
        return external_state(name, weights)
    return load_state(weights, name)


def _title(weights: str | os.PathLike[str] | Weights | None) -> str:
    return weights.name if isinstance(weights, Weights) else str(weights)


def _count_classes(
    entry: ModelEntry, record: Weights | None, state: dict[str, torch.Tensor]
) -> int | None:
    """How many outputs the weights have: the length of the network's last tensor."""
    if record is not None and record.covers == "features":
        return None
    with torch.device("meta"):
        *_, last = entry.build().state_dict()
    return len(state[last]) if last in state and state[last].dim() else None


def _drop_classifier(network: nn.Module) -> None:
    reset = getattr(network, "reset_classifier", None)
    if reset is None:
        raise UsageError("num_classes=0: only the package's and timm's networks can leave it out")
    reset(0)


def _pretrained_cfg(
    entry: ModelEntry, network: nn.Module, record: Weights | None
) -> dict[str, Any]:
    """What is known of the weights and the input, under timm's keys, and ``input_spec``."""
    size = getattr(network, "image_size", None)
    in_chans = getattr(network, "in_chans", None)
    spec = entry.spec
    if ":" not in entry.name and in_chans in (1, 3):
        spec = input_spec(entry.name, size, in_chans)
    cfg: dict[str, Any] = {
        "architecture": entry.name,
        "num_classes": getattr(network, "num_classes", None),
        "input_size": (spec.channels, spec.size, spec.size),
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop / spec.resize,
        "mean": tuple(value / (255 * spec.scale) for value in spec.mean),
        "std": tuple(value / (255 * spec.scale) for value in spec.std),
        "first_conv": next(n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)),
        "classifier": getattr(network, "classifier_name", None),
        "input_spec": spec.to_dict(),
    }
    if record is not None:
        cfg |= {
            "tag": record.name,
            "url": record.path_or_url if "://" in record.path_or_url else "",
            "license": record.licence,
            "origin_url": record.source,
            "label_names": record.classes if record.covers == "all" else None,
        }
    return cfg
