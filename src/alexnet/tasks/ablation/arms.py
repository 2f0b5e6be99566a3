"""Which networks an ablation trains: one change at a time, and from LeNet to AlexNet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]

BASE: dict[str, Any] = {
    "model.activation": "relu",
    "model.pooling": "overlapping",
    "model.norm": "lrn",
    "model.dropout": 0.5,
    "augment.mirror": 0.5,
    "augment.shift": 0.1,
    "augment.pca": 0.1,
    "data.val_fraction": 0.0,
    "training.batch_size": 64,
    "training.optimizer": "sgd",
    "training.lr": 0.03,
    "training.momentum": 0.9,
    "training.weight_decay": 0.0005,
    "training.schedule": "cosine",
    "training.keep": "last",
    "training.precision": "fp32",
    "training.label_smoothing": 0.0,
    "training.ema": 0.0,
    "training.clip_norm": 0.0,
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
    "augment.randaugment": 0,
}
"""What the paper has, as far as the network for small pictures can have it: crops are shifts."""
BARE: dict[str, Any] = {
    "model.dropout": 0.0,
    "augment.mirror": 0.0,
    "augment.shift": 0.0,
    "augment.pca": 0.0,
}
"""No regularization but weight decay, as in the paper's figure 1."""
CHANGED = ("activation", "pooling", "norm", "groups")
"""What of a network's choices (``model.``) an ablation changes."""
RATES = (0.01, 0.03, 0.1)
"""Learning rates of which each activation has its fastest (the paper: "chosen independently")."""


@dataclass(frozen=True)
class Arm:
    """A way to train.

    Attributes:
        name: in words.
        changes: of :data:`BASE`.
        claim: what the paper says that it brings, where it does.
    """

    name: str
    changes: Settings
    claim: str = ""


@dataclass(frozen=True)
class Innovation:
    """One of the paper's ideas: the base against the base without it.

    Attributes:
        name: in words.
        without: what is trained instead.
        claim: what the paper says, with its section.
    """

    name: str
    without: Arm
    claim: str


def innovations(*, mirrored: bool, towers: bool) -> list[Innovation]:
    """What is taken away from the base, one at a time.

    Args:
        mirrored: whether the data have mirror images at all; digits do not.
        towers: whether the network can be divided in two.
    """
    off = {"augment.mirror": 0.0, "augment.shift": 0.0, "augment.pca": 0.0}
    found = [
        ("ReLU", "tanh", {"model.activation": "tanh"}, "trains several times faster (3.1)"),
        ("overlapping pooling", "pooling 2/2", {"model.pooling": "plain"},
         "0.4 and 0.3 points of top-1 and top-5 error (3.4)"),
        ("max-pooling", "average pooling", {"model.pooling": "average"}, ""),
        ("local response normalization", "no normalization", {"model.norm": "none"},
         "1.4 and 1.2 points on ImageNet; 13% to 11% of errors on CIFAR-10 (3.3)"),
        ("LRN, not batch norm", "batch norm", {"model.norm": "batch"}, ""),
        ("dropout", "no dropout", {"model.dropout": 0.0},
         "without it the network overfits substantially (4.2)"),
        ("shifted crops", "no shifts", {"augment.shift": 0.0},
         "without crops and mirror images it overfits substantially (4.1)"),
        ("mirror images", "no mirror images", {"augment.mirror": 0.0}, "see crops (4.1)"),
        ("color noise", "no color noise", {"augment.pca": 0.0},
         "over 1 point of top-1 error (4.1)"),
        ("all augmentation", "no augmentation", off, ""),
        ("two towers", "one tower", {"model.groups": 1}, "1.7 and 1.2 points (3.2)"),
    ]  # fmt: skip
    return [
        Innovation(name, Arm(without, changes), claim)
        for name, without, changes, claim in found
        if (mirrored or name != "mirror images") and (towers or name != "two towers")
    ]


def stairs(base: Settings = BASE) -> list[Arm]:
    """From LeNet's choices to AlexNet's, each step with those before it.

    Args:
        base: AlexNet's choices, where the last step ends.
    """
    taken: dict[str, Any] = {
        "model.activation": "tanh", "model.pooling": "average", "model.norm": "none", **BARE,
    }  # fmt: skip
    steps: list[tuple[str, dict[str, Any]]] = [
        ("LeNet's choices: tanh, average pooling", {}),
        ("+ ReLU", {"model.activation": "relu"}),
        ("+ max-pooling 2/2", {"model.pooling": "plain"}),
        ("+ overlapping", {"model.pooling": "overlapping"}),
        ("+ LRN", {"model.norm": "lrn"}),
        ("+ dropout", {"model.dropout": base["model.dropout"]}),
        ("+ augmentation: AlexNet's choices", {n: base[n] for n in BARE if n != "model.dropout"}),
    ]  # fmt: skip
    found = []
    for name, change in steps:
        taken = {**taken, **change}
        found.append(Arm(name, taken))
    return found


def races() -> dict[str, list[Arm]]:
    """ReLU against tanh without regularization, each at several rates (the paper's figure 1)."""
    return {
        kind: [
            Arm(
                f"{kind} at a rate of {rate:g}",
                {**BARE, "model.activation": kind, "training.lr": rate},
            )
            for rate in RATES
        ]
        for kind in ("relu", "tanh")
    }
