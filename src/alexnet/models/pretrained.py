"""The run folder's two files that make a network: ``model.safetensors`` and ``config.json``.

Training writes them, everything else reads them, and so do ``from_pretrained``, ``save_pretrained``
and ``push_to_hub``. Nothing in them is a pickle.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet import files
from alexnet.errors import UsageError
from alexnet.models.hub import PREFIX, hub_file
from alexnet.models.registry import create_model, input_spec
from alexnet.models.state import load_into, read_state, write_state
from alexnet.models.weights import TENSORS, Weights, get_weights
from alexnet.spec import InputSpec

CONFIG = "config.json"


@dataclass(frozen=True)
class LoadedModel:
    """A network with what is needed to use it.

    Attributes:
        network: in evaluation mode, on the CPU.
        classes: names of the outputs in order; None where they are not known.
        spec: how pictures become its input.
        config: the whole of ``config.json``.
    """

    network: nn.Module
    classes: tuple[str, ...] | None
    spec: InputSpec
    config: dict[str, Any]


def run_config(
    network: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    spec: InputSpec | None = None,
    metrics: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of ``config.json``: all that is needed to build and use the network again.

    Args:
        network: from :func:`alexnet.models.create_model`, or one of the package's classes.
        classes: names of the outputs in order; by default what the network's weights came with.
        spec: its input; by default what the network's weights came with.
        metrics: measured figures.
        extra: further entries: how the run was made.

    Raises:
        UsageError: a network that cannot be built again by name, or a number of class names that is
            not the number of outputs.
    """
    known = vars(network).get("pretrained_cfg") or {}
    name = getattr(network, "model_name", None)
    arguments = getattr(network, "model_arguments", None)
    if name is None or arguments is None:
        raise UsageError(
            f"a {type(network).__name__} cannot be built again by name: make it with create_model"
        )
    if spec is None:
        given = known.get("input_spec")
        size, channels = getattr(network, "image_size", None), getattr(network, "in_chans", None)
        spec = InputSpec.from_dict(given) if given else input_spec(str(name), size, channels)
    classes = known.get("label_names") if classes is None else classes
    outputs = getattr(network, "num_classes", None)
    if classes is not None and isinstance(outputs, int) and len(classes) != outputs:
        raise UsageError(f"{len(classes)} class names for {outputs} outputs: give one an output")
    return {
        "model": name,
        "arguments": arguments,
        "classes": None if classes is None else list(classes),
        "input": spec.to_dict(),
        "metrics": dict(metrics or {}),
        "versions": versions(),
        **(extra or {}),
    }


def save_run(folder: str | os.PathLike[str], network: nn.Module, **about: Any) -> None:
    """Write ``model.safetensors`` and ``config.json``, each atomically.

    Args:
        folder: made when it is not there.
        network: from :func:`alexnet.models.create_model`, or one of the package's classes.
        about: ``classes``, ``spec``, ``metrics`` and ``extra`` of :func:`run_config`.

    Raises:
        UsageError: as :func:`run_config`, or a folder that cannot be written to.
        FailedError: no space on the disk.
    """
    config = run_config(network, **about)
    write_state(Path(folder) / TENSORS, network)
    files.write_json(Path(folder) / CONFIG, config)


def load_run(source: str | os.PathLike[str], **options: Any) -> LoadedModel:
    """Load a network that was saved.

    Args:
        source: a run folder, ``"hf:OWNER/NAME"``, or weights by name (``"lenet5/fashion-mnist"``,
            or ``"fashion-mnist"`` where one model has them).
        options: of a download from the Hub (see :func:`alexnet.models.hub.hub_file`).

    Raises:
        UsageError: nothing there, a file missing or damaged, or files that do not fit each other.
        FailedError: a download failed.
    """
    text = os.fspath(source)
    if text.startswith(PREFIX):
        repository = text.removeprefix(PREFIX)
        return _load(
            hub_file(repository, CONFIG, **options), hub_file(repository, TENSORS, **options)
        )
    folder = Path(text)
    if folder.is_dir():
        for name in (CONFIG, TENSORS):
            if not (folder / name).is_file():
                raise UsageError(
                    f"{folder} has no {name}: give the folder of a finished run, or go on with "
                    f"--resume"
                )
        return _load(folder / CONFIG, folder / TENSORS)
    if folder.exists():
        raise UsageError(f"{folder} is a file: give a run folder, or its weights to --weights")
    if text.count("/") > 1 or text.startswith((".", "/", "~")):
        raise UsageError(f"no run folder {text}: check the path")
    try:
        return _load_named(get_weights(text))
    except UsageError as error:
        if Path(text).name == text and "unknown weights" in str(error):
            raise UsageError(f"there is no run folder {text!r}, and {error}") from error
        raise


def versions() -> dict[str, str]:
    """The versions of what a saved network depends on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    try:
        found["alexnet"] = metadata.version("alexnet")
    except metadata.PackageNotFoundError:  # run from the source tree, not installed
        found["alexnet"] = "unknown"
    return found


def _load_named(weights: Weights) -> LoadedModel:
    if weights.covers == "features":
        raise UsageError(
            f"{weights.name} has the convolutions of {weights.model} only and cannot classify: "
            f"fine-tune from it with: alexnet finetune DATA -o RUN"
        )
    network = create_model(weights.model, weights=weights).eval()
    config = {
        "model": weights.model,
        "arguments": network.model_arguments,
        "metrics": weights.metrics,
        "weights": weights.name,
    }
    return LoadedModel(network, weights.classes, weights.spec, config)


def _load(config_file: Path, tensors: Path) -> LoadedModel:
    config = files.read_json(config_file)
    try:
        name, arguments = str(config["model"]), dict(config["arguments"])
        spec = InputSpec.from_dict(config["input"])
        classes = None if config.get("classes") is None else tuple(map(str, config["classes"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{config_file} is not a run's ({type(error).__name__}: {error}): restore it"
        ) from error
    network = _build_empty(name, arguments)
    on_meta = any(parameter.is_meta for parameter in network.parameters())
    load_into(network, read_state(tensors), source=str(tensors), assign=on_meta)
    outputs = getattr(network, "num_classes", None)
    if classes is not None and isinstance(outputs, int) and len(classes) != outputs:
        raise UsageError(
            f"{config_file} names {len(classes)} classes for {outputs} outputs: restore it"
        )
    known: dict[str, Any] = vars(network)["pretrained_cfg"]
    known |= {"label_names": classes, "input_spec": spec.to_dict()}
    return LoadedModel(network.eval(), classes, spec, config)


def _build_empty(name: str, arguments: dict[str, Any]) -> nn.Module:
    """The network without numbers, which spares drawing 61 million; with, where it needs them.

    Buffers that a state dict does not hold (LeNet's tables) must be computed.
    """
    if ":" in name:
        return create_model(name, **arguments)
    with torch.device("meta"):
        network = create_model(name, **arguments)
    kept = network.state_dict()
    if all(key in kept for key, _ in network.named_buffers()):
        return network
    return create_model(name, **arguments)
