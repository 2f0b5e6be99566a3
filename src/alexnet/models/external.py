"""torchvision's and timm's networks under the same names and calls as ours.

``torchvision:vgg11``, ``timm:resnet18``: the deeper networks that AlexNet led to.
"""

from __future__ import annotations

import functools
import types
from typing import Any, cast

from torch import nn

from alexnet.errors import FailedError, UsageError, missing_extra, unknown_name
from alexnet.models.download import download
from alexnet.models.entries import ModelEntry
from alexnet.models.state import read_state
from alexnet.spec import InputSpec, Interpolation

# Beginning of a network's name: year and authors. The longest that fits counts.
FAMILIES: dict[str, tuple[int, str]] = {
    "alexnet": (2014, "Krizhevsky"),
    "vgg": (2014, "Simonyan, Zisserman"),
    "googlenet": (2014, "Szegedy et al."),
    "inception": (2015, "Szegedy et al."),
    "resnet": (2015, "He, Zhang, Ren, Sun"),
    "wide_resnet": (2016, "Zagoruyko, Komodakis"),
    "squeezenet": (2016, "Iandola et al."),
    "resnext": (2016, "Xie et al."),
    "densenet": (2016, "Huang et al."),
    "shufflenet": (2018, "Ma et al."),
    "mobilenet_v2": (2018, "Sandler et al."),
    "mobilenetv2": (2018, "Sandler et al."),
    "mnasnet": (2018, "Tan et al."),
    "mobilenet_v3": (2019, "Howard et al."),
    "mobilenetv3": (2019, "Howard et al."),
    "efficientnet": (2019, "Tan, Le"),
    "regnet": (2020, "Radosavovic et al."),
    "vit": (2020, "Dosovitskiy et al."),
    "efficientnet_v2": (2021, "Tan, Le"),
    "swin": (2021, "Liu et al."),
    "convnext": (2022, "Liu et al."),
    "maxvit": (2022, "Tu et al."),
}


def external_entry(name: str) -> ModelEntry:
    """The entry of ``"torchvision:NAME"`` or ``"timm:NAME"``.

    Raises:
        UsageError: a library that is not one of the two or not installed, or no such network.
    """
    library, _, short = name.partition(":")
    if library not in ("torchvision", "timm"):
        raise unknown_name("model library", library, ("torchvision", "timm"))
    if library == "torchvision":
        build, spec = _from_torchvision(short)
    else:
        build, spec = _from_timm(short)
    family = max((f for f in FAMILIES if short.startswith(f)), key=len, default="")
    year, authors = FAMILIES.get(family, (None, ""))
    return ModelEntry(
        name=name,
        build=build,
        year=year,
        authors=authors,
        paper="",
        description=f"{short} of {library}",
        spec=spec,
        recipe="modern",
        low_precision_pays=True,
        activation="",
        pooling="",
        regularization="",
        normalization="",
        layers=None,
    )


def _from_torchvision(name: str) -> tuple[Any, InputSpec]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown_name("torchvision model", name, known)
    published: Any = models.get_model_weights(name)
    preset = published.DEFAULT.transforms()
    interpolation = cast(Interpolation, preset.interpolation.value)
    spec = InputSpec(
        size=preset.crop_size[0],
        resize=max(preset.resize_size[0], preset.crop_size[0]),
        interpolation=interpolation,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    return functools.partial(_build_torchvision, name), spec


def _build_torchvision(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: int | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build it with no weights and, where training would return several outputs, one.

    Most of torchvision's networks take any size; ``image_size`` reaches those that fix it.
    """
    from torchvision import models

    if name in ("googlenet", "inception_v3"):
        arguments = {"aux_logits": False, "init_weights": True, **arguments}
    if image_size is not None and name.startswith("vit"):
        arguments["image_size"] = image_size
    if image_size is not None and name.startswith("maxvit"):
        arguments["input_size"] = (image_size, image_size)
    if "weights" in arguments:
        raise UsageError(f"torchvision:{name} takes its weights as weights=..., by name or file")
    network = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    if in_chans != 3:
        _replace_stem(network, in_chans)
    return network


def _replace_stem(network: nn.Module, in_chans: int) -> None:
    """A fresh first convolution that reads ``in_chans`` channels."""
    name, stem = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    fresh = nn.Conv2d(
        in_chans,
        stem.out_channels,
        cast(Any, stem.kernel_size),
        cast(Any, stem.stride),
        cast(Any, stem.padding),
        bias=stem.bias is not None,
    )
    network.set_submodule(name, fresh)


def _timm() -> types.ModuleType:
    try:
        import timm
    except ImportError as error:
        raise missing_extra("timm", "timm", "a model of timm") from error
    return timm


def _from_timm(name: str) -> tuple[Any, InputSpec]:
    timm = _timm()
    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    config = timm.get_pretrained_cfg(name)
    settings: dict[str, Any] = {} if config is None else config.to_dict()
    size = settings.get("input_size", (3, 224, 224))[-1]
    methods: tuple[Interpolation, ...] = ("bilinear", "bicubic", "lanczos", "nearest")
    chosen = settings.get("interpolation")
    spec = InputSpec(
        size=size,
        resize=max(size, int(size / settings.get("crop_pct", 0.875))),
        interpolation=chosen if chosen in methods else "bilinear",
        mean=tuple(settings.get("mean", InputSpec.mean)),
        std=tuple(settings.get("std", InputSpec.std)),
    )
    return functools.partial(_build_timm, name), spec


def _build_timm(
    name: str,
    num_classes: int = 1000,
    in_chans: int = 3,
    image_size: int | None = None,
    **arguments: Any,
) -> nn.Module:
    """Build it with no weights; ``image_size`` reaches the networks that fix their size."""
    timm = _timm()
    config = timm.get_pretrained_cfg(name)
    if image_size is not None and config is not None and config.fixed_input_size:
        arguments["img_size"] = image_size
    return timm.create_model(name, num_classes=num_classes, in_chans=in_chans, **arguments)


def external_state(name: str, weights: str) -> dict[str, Any]:
    """The published weights of another library's network.

    Args:
        name: ``"torchvision:NAME"`` or ``"timm:NAME"``.
        weights: ``"default"``, or the library's own name for them (``"IMAGENET1K_V1"``).

    Raises:
        FailedError: they could not be downloaded.
        UsageError: there are none of that name.
    """
    library, _, short = name.partition(":")
    if library == "torchvision":
        return _torchvision_state(short, weights)
    return _timm_state(short, weights)


def _torchvision_state(name: str, weights: str) -> dict[str, Any]:
    from torchvision import models

    published = models.get_model_weights(name)
    wanted = weights.upper()
    if wanted not in published.__members__:
        raise unknown_name(f"weights of torchvision:{name}", weights, published.__members__)
    url = published[wanted].url
    return read_state(download(url, url.rpartition("-")[2].partition(".")[0]))


def _timm_state(name: str, weights: str) -> dict[str, Any]:
    tag = "" if weights.lower() == "default" else f".{weights}"
    timm = _timm()
    try:
        network = timm.create_model(name + tag, pretrained=True)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FailedError(
            f"cannot load the weights {weights!r} of timm:{name} ({reason}): check the name and "
            f"the connection, or give a file"
        ) from error
    return network.state_dict()
