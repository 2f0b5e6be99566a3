"""What a comparison says of a network: from its paper, its layers, its settings, and measured."""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from alexnet.data.loader import load_pixels
from alexnet.data.sources import Pictures
from alexnet.layers import LocallyConnected2d, LocalResponseNorm, SparseConv2d
from alexnet.models.registry import model_entry
from alexnet.models.summary import ACTIVATION_NAMES, count_macs, count_parameters
from alexnet.tasks.predict import Classifier
from alexnet.tasks.scaling.counts import saved_bytes

_DEPTHS = {"googlenet": 22, "alexnet": 8, "inception_v3": 48, "squeezenet": 18}
"""Layers with weights as the papers count them, where the name does not say so."""
_NORMS: tuple[tuple[type[nn.Module] | tuple[type[nn.Module], ...], str], ...] = (
    ((LocalResponseNorm, nn.LocalResponseNorm), "local response"),
    (nn.BatchNorm2d, "batch"),
    (nn.LayerNorm, "layer"),
    (nn.GroupNorm, "group"),
)


def describe(name: str, classifier: Classifier, pictures: Pictures) -> dict[str, Any]:
    """One network's facts and figures, but for what it scored.

    Args:
        name: of the model.
        classifier: the trained network.
        pictures: that its speed is measured on.
    """
    entry, network, spec = model_entry(name), classifier.network, classifier.spec
    config = classifier.config
    trainable, fixed = count_parameters(network)
    shape = (spec.channels, spec.size, spec.size)
    settings = config.get("settings", {})

    def published(choice: str) -> str | None:
        """What the paper has, unless this network was told otherwise."""
        changed = choice in settings.get("model", {})
        return None if changed else getattr(entry, {"norm": "normalization"}.get(choice, choice))

    return {
        "year": entry.year,
        "authors": entry.authors or None,
        "layers": layers(name, network, entry.layers),
        "activation": published("activation") or activations(network, shape),
        "pooling": published("pooling") or poolings(network),
        "regularization": regularization(network, settings),
        "normalization": published("norm") or normalizations(network),
        "input": list(shape),
        "parameters": trainable,
        "fixed_parameters": fixed,
        "macs": count_macs(network, spec),
        "weight_bytes": sum(t.numel() * t.element_size() for t in network.state_dict().values()),
        "activation_bytes": activation_bytes(network, shape),
        "initialized_from": config.get("initialized_from") or "random weights",
        "trained_on": config.get("data", {}).get("name"),
        "train_images": config.get("data", {}).get("train"),
        "epochs": settings.get("training", {}).get("epochs"),
        "accelerator": accelerator(classifier),
        **speed(classifier, pictures),
    }


def layers(name: str, network: nn.Module, published: int | None) -> int:
    """Layers with weights: as the paper counts them, else convolutions and linear layers.

    Of a network that was given another head, what is there is counted.
    """
    kinds = (nn.Conv2d, nn.Linear, LocallyConnected2d, SparseConv2d)
    weighted = sum(isinstance(module, kinds) for module in network.modules())
    if published is not None:
        return min(published, weighted) if name.startswith("alexnet") else published
    short = name.partition(":")[2]
    found = re.match(r"(?:vgg|resnet|resnext|wide_resnet|densenet)(\d+)", short)
    if found:
        return int(found[1])
    return next((depth for name, depth in _DEPTHS.items() if short.startswith(name)), weighted)


_FUNCTIONS = {"relu": "ReLU", "gelu": "GELU", "silu": "SiLU", "tanh": "tanh", "elu": "ELU"}


class _Heard(TorchFunctionMode):
    """Notes the activations that are called as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = _FUNCTIONS.get(getattr(func, "__name__", "").rstrip("_"))
        if name:
            self.found.add(name)
        return func(*args, **(kwargs or {}))


def activations(network: nn.Module, shape: tuple[int, int, int]) -> str:
    """The activations that a network has, in words; some call functions in place of modules.

    Args:
        network: any.
        shape: of a picture, channels first.
    """
    kinds = {ACTIVATION_NAMES.get(type(module)) for module in network.modules()} - {None}
    if not kinds:
        heard = _Heard()
        with heard, torch.no_grad():
            copy.deepcopy(network).to("meta").eval()(torch.empty(1, *shape, device="meta"))
        kinds = set(heard.found)
    return ", ".join(sorted(kind for kind in kinds if kind)) or "none"


def poolings(network: nn.Module) -> str:
    """How a network pools, in words."""
    kinds = []
    for module in network.modules():
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            word = "max" if isinstance(module, nn.MaxPool2d) else "average"
            size, stride = (
                value[0] if isinstance(value, tuple) else value
                for value in (module.kernel_size, module.stride)
            )
            kinds.append(f"{word} {size}/{stride}")
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            kinds.append("average of the whole map" if module.output_size in (1, (1, 1)) else "")
    return ", ".join(dict.fromkeys(kind for kind in kinds if kind)) or "none"


def normalizations(network: nn.Module) -> str:
    """What a network normalizes by, in words."""
    found = [word for kinds, word in _NORMS if any(isinstance(m, kinds) for m in network.modules())]
    return ", ".join(found) or "none"


def regularization(network: nn.Module, settings: Mapping[str, Any]) -> str:
    """What kept the network from learning its pictures by heart, as it was trained here."""
    augment, training = settings.get("augment", {}), settings.get("training", {})
    varied = any(
        augment.get(part) for part in ("mirror", "rotate", "shift", "crop", "pca", "randaugment")
    )
    named = {
        "dropout": any(isinstance(m, nn.Dropout) and m.p > 0 for m in network.modules()),
        "augmentation": varied,
        "mixup": bool(augment.get("mixup") or augment.get("cutmix")),
        "weight decay": training.get("weight_decay", 0) > 0,
        "label smoothing": training.get("label_smoothing", 0) > 0,
    }
    return ", ".join(name for name, used in named.items() if used) or "none"


def activation_bytes(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Bytes that training keeps of one picture from the forward to the backward pass, in fp32."""
    names = [name for name, module in network.named_modules() if not list(module.children())]
    on_meta = copy.deepcopy(network).to("meta")
    two, three = (  # batch normalization of one value a channel is refused
        sum(saved_bytes(on_meta, count, shape, "fp32", names).values()) for count in (2, 3)
    )
    return three - two


def accelerator(classifier: Classifier) -> str:
    """What the figures were measured on."""
    device = classifier.runtime.device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{classifier.runtime.threads} processor thread(s), {classifier.runtime.precision}"


def speed(classifier: Classifier, pictures: Pictures) -> dict[str, float]:
    """Pictures a second in batches of 256, and milliseconds of a single one (median of 21)."""
    some = pictures.subset(range(min(256, len(pictures))))
    pixels = load_pixels(some, classifier.spec, train=False)
    ((batch, _, _),) = pixels.batches([torch.arange(len(some))])
    singles = [_seconds(classifier, batch[:1]) for _ in range(21)]
    whole = [_seconds(classifier, batch) for _ in range(3)]
    return {
        "images_per_second": round(len(batch) / sorted(whole)[1], 1),
        "latency_ms": round(1000 * sorted(singles)[10], 3),
    }


def _seconds(classifier: Classifier, pixels: torch.Tensor) -> float:
    runtime = classifier.runtime
    began = time.perf_counter()
    with torch.inference_mode(), runtime.active(), runtime.autocast():
        outputs = classifier.network(runtime.place(classifier.spec.normalize(pixels)))
    float(outputs[0, 0])  # waits for the device
    return time.perf_counter() - began
