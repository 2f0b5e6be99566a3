"""Recipes: functions that return everything a training is told.

Each docstring gives the command, what it costs and what it reached when it was last measured (the
figures of README come from the same commands).
"""

from __future__ import annotations

from collections.abc import Callable

from alexnet.data.augment import AugmentConfig
from alexnet.errors import unknown_name
from alexnet.training.config import Config, DataConfig, FinetuneConfig, TrainingConfig


def lenet_modern() -> Config:
    """The textbook LeNet-5, trained with what has been learned since.

        alexnet train fashion-mnist --model lenet5_dense -o runs/lenet5_dense

    SGD with Nesterov momentum under a cosine schedule, weight decay, and mirror images (digits and
    letters have none). No choice is made on the way (the last epoch counts), so that no picture is
    held out.
    """
    return Config(
        data=DataConfig(val_fraction=0.0),
        training=TrainingConfig(
            epochs=20,
            batch_size=64,
            optimizer="sgd",
            lr=0.05,
            momentum=0.9,
            nesterov=True,
            weight_decay=0.0005,
            keep="last",
        ),
        augment=AugmentConfig(mirror=0.5),
    )


def lenet_rbf() -> Config:
    """``lenet_modern`` for the networks of 1989 and 1998.

        alexnet train fashion-mnist --model lenet5 -o runs/lenet5

    Their criteria are sums of squares of many units rather than one logarithm, so their gradients
    are some thirty times larger and the rate is as much smaller.
    """
    return lenet_modern().override({"training.lr": 0.0015, "training.weight_decay": 0.0})


def alexnet_modern() -> Config:
    """The AlexNets from random weights.

        alexnet train photos/ --model alexnet_bn -o runs/alexnet

    AdamW under a cosine schedule, random crops, mirror images and color changes, label smoothing;
    the epoch is chosen on a tenth of the training part. Made for data sets of thousands of pictures
    and more; a few hundred are better served by ``alexnet finetune``.
    """
    return Config(
        data=DataConfig(val_fraction=0.1),
        training=TrainingConfig(
            epochs=30,
            batch_size=64,
            optimizer="adamw",
            lr=0.0003,
            weight_decay=0.05,
            warmup=0.1,
            clip_norm=1.0,
            label_smoothing=0.1,
            keep="best",
        ),
        augment=AugmentConfig(
            mirror=0.5, crop=True, scale=(0.9, 1.4), aspect=0.15, brightness=0.3, contrast=0.3
        ),
    )


def finetune() -> Config:
    """A pretrained network made to tell other classes apart.

        alexnet finetune photos/ -o runs/photos

    The head is fitted on features computed once (a convex problem), then it and the last
    convolutions are trained together on varied pictures, as in Kumar et al. 2022 ('Fine-tuning can
    distort pretrained features and underperform out-of-distribution'): a head that fits already
    does not spoil the features. What is kept is the mean of both (Wortsman et al. 2022, 'Robust
    fine-tuning of zero-shot models') with the head fitted again. Classes count alike, however few
    pictures they have. Made for hundreds of pictures; :func:`alexnet.finetune` changes some
    settings from 1,500 and from 5,000 on.
    """
    return Config(
        data=DataConfig(fit="stretch", val_fraction=0.1, test_fraction=0.2),
        training=TrainingConfig(
            epochs=6,
            batch_size=32,
            optimizer="adamw",
            lr=0.0002,
            weight_decay=0.05,
            warmup=0.1,
            class_balance=1.0,
            keep="best",
            patience=3,
        ),
        augment=AugmentConfig(mirror=0.5, scale=(0.87, 1.25), aspect=0.1, rotate=10.0, shift=0.06),
        finetune=FinetuneConfig(),
    )


RECIPES: dict[str, Callable[[], Config]] = {
    "alexnet-modern": alexnet_modern,
    "finetune": finetune,
    "lenet-modern": lenet_modern,
    "lenet-rbf": lenet_rbf,
}
"""The recipes by name."""


def get_recipe(name: str) -> Config:
    """The recipe called ``name``.

    Raises:
        UsageError: no such recipe.
    """
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    return RECIPES[name]()
