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


def paper() -> Config:
    """AlexNet as its paper trains it (Krizhevsky et al. 2012, sections 2, 4 and 5).

        alexnet train imagenet:PATH --model alexnet --recipe paper -o runs/paper

    Batches of 128, the paper's own update rule, a rate of 0.01 that falls to a tenth whenever the
    validation score stops rising (three times), weight decay on everything, at most 90 epochs;
    crops and mirror images of the center square, the mean color subtracted, color noise along the
    principal components of pixels from 0 to 1 with a deviation of 0.1 (as the prose has it).

    Source: 40.7% top-1 and 18.2% top-5 error on ImageNet's validation part, in 5 to 6 days on two
    GTX 580. Not run here on ImageNet.

    Departures: the mean color in place of the mean image, which is nearly flat. Dropout divides
    while training in place of multiplying at test time (``model.dropout_scaled_at=test`` is the
    paper's). How long the score must stand still is not said: five epochs here.
    """
    return Config(
        data=DataConfig(mean="measured", val_fraction=0.1),
        training=TrainingConfig(
            epochs=90,
            batch_size=128,
            optimizer="paper",
            lr=0.01,
            momentum=0.9,
            weight_decay=0.0005,
            schedule="plateau",
            plateau=5,
            drops=3,
            warmup=0.0,
            keep="best",
        ),
        augment=AugmentConfig(mirror=0.5, crop=True, pca=0.1, pca_unit="variance"),
    )


def original() -> Config:
    """AlexNet as the original code trained it: its net #145, the one of the paper's results.

        alexnet train imagenet:PATH --model alexnet --recipe original -o runs/original

    Where it differs from the prose: the network (``model.preset=original``); rates that fall after
    epochs 25, 51 and 79; a rate of 0.02 for biases throughout, without decay; from epoch 67 on no
    color noise and a rate of 0.00001 for conv1, which is frozen from epoch 72 on; 91 epochs; 32
    pictures in a row share one crop position and mirror; color noise by standard deviations, the
    data divided by 1.1 while it is on; dropout multiplies at test time.

    Source: its log, 40.66% top-1 and 18.21% top-5 error (ten views). Not run here on ImageNet.
    """
    return Config(
        model={"preset": "original", "dropout_scaled_at": "test"},
        data=DataConfig(mean="measured", val_fraction=0.0),
        training=TrainingConfig(
            epochs=91,
            batch_size=128,
            optimizer="paper",
            lr=0.01,
            momentum=0.9,
            weight_decay=0.0005,
            bias_lr=0.02,
            schedule="milestones",
            milestones=(25, 51, 79),
            stem_epochs=(67, 72),
            stem_lr=1e-5,
            warmup=0.0,
            keep="last",
        ),
        augment=AugmentConfig(
            mirror=0.5,
            crop=True,
            share=32,
            pca=0.1,
            pca_unit="deviation",
            pca_until=67,
            pca_divide=1.1,
        ),
    )


def owt() -> Config:
    r"""The 2014 network as torchvision trains it: its reference recipe for ``alexnet``.

        torchrun --nproc-per-node 8 -m alexnet train imagenet:PATH --model alexnet_owt \
            --recipe owt -o runs/owt

    SGD with momentum, 32 pictures on each of 8 GPUs, a rate of 0.01 that falls to a tenth every 30
    of 90 epochs, weight decay 0.0001; random resized crops (8% to 100% of the area, aspect 3/4 to
    4/3) and mirror images.

    Source: torchvision's references/classification; its weights score 56.522% top-1 and 79.066%
    top-5. Not run here on ImageNet.

    Departures: crops are cut from the center square, not from the whole picture, and their size is
    drawn evenly in the logarithm of the side, not in the area.
    """
    return Config(
        data=DataConfig(val_fraction=0.0),
        training=TrainingConfig(
            epochs=90,
            batch_size=256,
            optimizer="sgd",
            lr=0.01,
            momentum=0.9,
            weight_decay=0.0001,
            schedule="milestones",
            milestones=(30, 60),
            warmup=0.0,
            keep="last",
        ),
        augment=AugmentConfig(mirror=0.5, crop=True, scale=(0.875, 3.094), aspect=1 / 3),
    )


def large_batch() -> Config:
    r"""Very large batches, divided among processes and gone through in parts (You et al. 2017).

        torchrun --nproc-per-node 8 -m alexnet train imagenet:PATH --model alexnet_bn \
            --recipe large-batch -o runs/large --set training.batch_size=32768

    LARS (timm's: ``pip install 'alexnet[timm]'``), 5 of 100 epochs of warm-up, then a quadratic
    fall of the rate to zero; biases and normalizations neither decay nor adapt. 256 pictures go
    through each process at once. Batch norms see those 256.

    Source: 'Large Batch Training of Convolutional Networks', arXiv:1708.03888, whose rates for
    AlexNet-BN grow from 10 at 4,096 to about 20 at 32,768 pictures (from memory, not verified; nor
    run here on ImageNet): set ``training.lr`` with ``training.batch_size``.
    """
    return Config(
        data=DataConfig(val_fraction=0.0),
        training=TrainingConfig(
            epochs=100,
            batch_size=4096,
            micro_batch=256,
            optimizer="lars",
            lr=10.0,
            momentum=0.9,
            weight_decay=0.0005,
            decay="weights",
            schedule="poly",
            power=2.0,
            warmup=0.05,
            keep="last",
        ),
        augment=AugmentConfig(mirror=0.5, crop=True),
    )


def modern() -> Config:
    """The AlexNets from random weights, with what has been learned since.

        alexnet train photos/ --model alexnet_bn -o runs/alexnet

    AdamW under a cosine schedule with warm-up, label smoothing, mixup and CutMix, one operation of
    RandAugment, random crops and mirror images, and a running average of the weights, which is what
    is kept. The epoch is chosen on a tenth of the training part. Made for data sets of thousands of
    pictures and more; a few hundred are better served by ``alexnet finetune``.

    Measured: ``alexnet_bn`` at 67 pixels on 773 drawings in 12 classes, 300 epochs at a rate of
    0.001, four splits: top-1 0.671 (deviation 0.026); ``paper`` 0.650 (0.038), and without
    augmentation 0.553 (0.008). 7 to 14 minutes a run on one core (``docs/recipes.md``).
    """
    return Config(
        data=DataConfig(val_fraction=0.1),
        training=TrainingConfig(
            epochs=30,
            batch_size=64,
            optimizer="adamw",
            lr=0.0005,
            weight_decay=0.05,
            decay="weights",
            warmup=0.1,
            clip_norm=1.0,
            label_smoothing=0.1,
            ema=0.999,
            keep="best",
        ),
        augment=AugmentConfig(
            mirror=0.5, crop=True, randaugment=1, magnitude=5.0, mixup=0.2, cutmix=1.0
        ),
    )


def lenet_1998() -> Config:
    """LeNet-5 as its paper trains it, all but the step sizes (LeCun et al. 1998, section III.B).

        alexnet train mnist --model lenet5 --recipe lenet-1998 -o runs/lenet5

    One picture a step, 20 passes, rates of 0.0005 (two passes), 0.0002 (three), 0.0001 (three),
    0.00005 (four) and 0.00001. No momentum, no decay, no augmentation.

    Source: 0.95% error on MNIST's test part after 20 passes.

    Departure: the paper divides these rates, weight by weight, by the curvature of the loss
    (stochastic diagonal Levenberg-Marquardt, appendix C); here they are the rates of all weights.
    """
    rates = (0.0005,) * 2 + (0.0002,) * 3 + (0.0001,) * 3 + (0.00005,) * 4 + (0.00001,) * 8
    return Config(
        data=DataConfig(val_fraction=0.0),
        training=TrainingConfig(
            epochs=20,
            batch_size=1,
            optimizer="sgd",
            momentum=0.0,
            schedule="table",
            rates=rates,
            weight_decay=0.0,
            warmup=0.0,
            keep="last",
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
    settings from 1,500, from 5,000 and from 20,000 on.
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
    "finetune": finetune,
    "large-batch": large_batch,
    "lenet-1998": lenet_1998,
    "lenet-modern": lenet_modern,
    "lenet-rbf": lenet_rbf,
    "modern": modern,
    "original": original,
    "owt": owt,
    "paper": paper,
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
