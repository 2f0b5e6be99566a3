"""Our networks in torchvision's and timm's registries.

timm asks that an entry be a function of a module that has ``__all__`` and ``default_cfgs``; this is
that module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from alexnet.errors import UsageError
from alexnet.models.entries import ENTRIES, ModelEntry
from alexnet.models.registry import create_model
from alexnet.models.weights import list_weights

__all__ = ["register"]

default_cfgs: dict[str, Any] = {}
"""timm's configurations of our networks; filled by :func:`register`."""


def register() -> None:
    """Add the networks to torchvision's registry and, where it is installed, to timm's.

    They are ``alexnet_2012``, ``alexnet_2012_ungrouped``, ``alexnet_2012_bn``, ``alexnet_2014``,
    ``alexnet_cifar``, ``lenet_1989``, ``lenet5_1998`` and ``lenet5_dense``; calling it
    again changes nothing. Then ``torchvision.models.get_model("alexnet_2012", num_classes=7)`` and
    ``timm.create_model("alexnet_2012", num_classes=7)`` work.
    """
    from torchvision.models import list_models
    from torchvision.models._api import register_model

    registered = set(list_models())
    for entry in ENTRIES:
        if entry.registered_as and entry.registered_as not in registered:
            register_model(entry.registered_as)(functools.partial(_for_torchvision, entry.name))
    try:
        import timm.models
    except ImportError:
        return
    for entry in ENTRIES:
        if entry.registered_as and not timm.models.is_model(entry.registered_as):
            _register_in_timm(entry, entry.registered_as)


def _for_torchvision(
    name: str, *, weights: str | None = None, progress: bool = True, **arguments: Any
) -> nn.Module:
    """A builder as torchvision's are; ``weights`` may be ``"DEFAULT"``."""
    del progress  # the bar is shown wherever there is a terminal
    if weights is not None and weights.upper() == "DEFAULT":
        weights = _default_weights(name)
    return create_model(name, weights=weights, **arguments)


def _default_weights(name: str) -> str:
    """The first weights that cover all of a network; else an error that names what there is."""
    for weights in list_weights(name):
        if weights.covers == "all":
            return weights.name
    raise UsageError(
        f"there are no pretrained weights of the whole of {name}: train it, or leave "
        f"the weights out"
    )


def _register_in_timm(entry: ModelEntry, registered_as: str) -> None:
    from timm.models import generate_default_cfgs, register_model

    def entrypoint(
        pretrained: bool = False,
        *,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **arguments: Any,
    ) -> nn.Module:
        del pretrained_cfg, pretrained_cfg_overlay, cache_dir  # timm's own ways to find weights
        for theirs, ours in (("img_size", "image_size"), ("drop_rate", "dropout")):
            if theirs in arguments:
                arguments[ours] = arguments.pop(theirs)
        weights = _default_weights(entry.name) if pretrained else None
        return create_model(entry.name, weights=weights, **arguments)

    spec = entry.spec
    default_cfgs.update(
        generate_default_cfgs(
            {
                registered_as: {
                    "input_size": (spec.channels, spec.size, spec.size),
                    "num_classes": 1000 if spec.channels == 3 and spec.size > 32 else 10,
                    "crop_pct": spec.crop / spec.resize,
                    "interpolation": spec.interpolation,
                    "mean": tuple(value / (255 * spec.scale) for value in spec.mean),
                    "std": tuple(value / (255 * spec.scale) for value in spec.std),
                }
            }
        )
    )
    named: Callable[..., nn.Module] = entrypoint
    named.__name__ = named.__qualname__ = registered_as
    globals()[registered_as] = named
    register_model(named)
