"""The networks there are, and what a lecture's table says of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from alexnet.models.alexnet import AlexNet
from alexnet.models.cifar import AlexNetCifar
from alexnet.models.lenet import LeNet5, LeNet5Dense, LeNet1989
from alexnet.spec import InputSpec, lenet_spec

KRIZHEVSKY_2012 = (
    "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural "
    "Networks. NIPS 2012"
)
KRIZHEVSKY_2014 = (
    "Krizhevsky: One weird trick for parallelizing convolutional neural networks. arXiv:1404.5997"
)
LECUN_1998 = (
    "LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. "
    "Proceedings of the IEEE 86(11), 1998"
)
LECUN_1989 = (
    "LeCun et al.: Backpropagation Applied to Handwritten Zip Code Recognition. "
    "Neural Computation 1(4), 1989"
)


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be built by name, and what a lecture's table says of it.

    Attributes:
        name: what :func:`alexnet.models.create_model` takes.
        build: makes the network; takes ``num_classes``, ``in_chans`` and the network's arguments.
        year: of publication; None for a network of another library that is not in our table.
        authors: who, shortened.
        paper: the source.
        description: one line.
        spec: how pictures become its input, as published.
        recipe: the name of the training recipe that suits it.
        low_precision_pays: whether it is large enough to gain by bf16.
        activation: the published activation, as text.
        pooling: the published pooling, as text.
        regularization: the published regularization, as text.
        normalization: the published normalization, as text.
        layers: number of layers with weights, counted as the paper counts.
        registered_as: its name in torchvision's and timm's registries; None for their own.
    """

    name: str
    build: Callable[..., nn.Module]
    year: int | None
    authors: str
    paper: str
    description: str
    spec: InputSpec
    recipe: str
    low_precision_pays: bool
    activation: str
    pooling: str
    regularization: str
    normalization: str
    layers: int | None
    registered_as: str | None = None


# The paper trains on 'the (centered) raw RGB values of the pixels' (section 2): 0 to 255 less the
# mean, not divided by a deviation. Its weights from N(0, 0.01) need inputs of that size. The mean
# image of ImageNet is nearly flat, so its mean color stands for it.
RAW_RGB = InputSpec(
    size=227, resize=256, scale=1.0, mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0)
)
CIFAR_RGB = InputSpec(
    size=32, resize=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
)
# 16x16 pictures from -1 (background) to 1 (section 3.1 of 1989).
ZIP_CODE_GRAY = InputSpec(
    size=16, channel_order="gray", resize=16, scale=2 / 255, mean=(1.0,), std=(1.0,)
)

ENTRIES: tuple[ModelEntry, ...] = (
    ModelEntry(
        name="lenet1989",
        build=LeNet1989,
        year=1989,
        authors="LeCun et al.",
        paper=LECUN_1989,
        description="zip codes: two strided convolutions, no pooling, a bias for every unit",
        spec=ZIP_CODE_GRAY,
        recipe="lenet-rbf",
        low_precision_pays=False,
        activation="1.7159 tanh(2x/3)",
        pooling="none (stride 2)",
        regularization="none",
        normalization="none",
        layers=4,
        registered_as="lenet_1989",
    ),
    ModelEntry(
        name="lenet5",
        build=LeNet5,
        year=1998,
        authors="LeCun, Bottou, Bengio, Haffner",
        paper=LECUN_1998,
        description="exact: sparse C3, trainable sub-sampling, RBF output to the digits' bitmaps",
        spec=lenet_spec(),
        recipe="lenet-rbf",
        low_precision_pays=False,
        activation="1.7159 tanh(2x/3)",
        pooling="trainable 2x2 sum",
        regularization="none",
        normalization="none",
        layers=7,
        registered_as="lenet5_1998",
    ),
    ModelEntry(
        name="lenet5_dense",
        build=LeNet5Dense,
        year=1998,
        authors="LeCun, Bottou, Bengio, Haffner",
        paper=LECUN_1998,
        description="the form that textbooks draw: dense C3, average pooling, linear output",
        spec=lenet_spec(),
        recipe="lenet-modern",
        low_precision_pays=False,
        activation="tanh",
        pooling="average 2x2",
        regularization="none",
        normalization="none",
        layers=5,
        registered_as="lenet5_dense",
    ),
    ModelEntry(
        name="alexnet",
        build=AlexNet,
        year=2012,
        authors="Krizhevsky, Sutskever, Hinton",
        paper=KRIZHEVSKY_2012,
        description="exact: two towers, local response normalization",
        spec=RAW_RGB,
        recipe="modern",
        low_precision_pays=True,
        activation="ReLU",
        pooling="max 3x3, stride 2",
        regularization="dropout 0.5, weight decay, augmentation",
        normalization="local response",
        layers=8,
        registered_as="alexnet_2012",
    ),
    ModelEntry(
        name="alexnet_ungrouped",
        build=functools.partial(AlexNet, groups=1),
        year=2012,
        authors="Krizhevsky, Sutskever, Hinton",
        paper=KRIZHEVSKY_2012,
        description="the published layer table read as one tower",
        spec=RAW_RGB,
        recipe="modern",
        low_precision_pays=True,
        activation="ReLU",
        pooling="max 3x3, stride 2",
        regularization="dropout 0.5, weight decay, augmentation",
        normalization="local response",
        layers=8,
        registered_as="alexnet_2012_ungrouped",
    ),
    ModelEntry(
        name="alexnet_bn",
        build=functools.partial(AlexNet, norm="batch"),
        year=2017,
        authors="after You, Gitman, Ginsburg",
        paper="You, Gitman, Ginsburg: Large Batch Training of Convolutional Networks. "
        "arXiv:1708.03888",
        description="batch norm after each convolution, for very large batches",
        spec=InputSpec(size=227, resize=256),
        recipe="modern",
        low_precision_pays=True,
        activation="ReLU",
        pooling="max 3x3, stride 2",
        regularization="dropout 0.5, weight decay, augmentation",
        normalization="batch",
        layers=8,
        registered_as="alexnet_2012_bn",
    ),
    ModelEntry(
        name="alexnet_cifar",
        build=AlexNetCifar,
        year=2012,
        authors="Krizhevsky, Sutskever, Hinton",
        paper=KRIZHEVSKY_2012,
        description="the paper's four-layer network for 32x32 pictures, for ablations",
        spec=CIFAR_RGB,
        recipe="modern",
        low_precision_pays=True,
        activation="ReLU",
        pooling="max 3x3, stride 2",
        regularization="weight decay, augmentation",
        normalization="local response",
        layers=4,
        registered_as="alexnet_cifar",
    ),
    ModelEntry(
        name="alexnet_owt",
        build=functools.partial(
            AlexNet,
            image_size=224,
            groups=1,
            widths=(64, 192, 384, 256, 256),
            stem_padding=2,
            norm="none",
            dropout_position="before",
            init="default",
        ),
        year=2014,
        authors="Krizhevsky",
        paper=KRIZHEVSKY_2014,
        description="one tower, no LRN: the network torchvision's ImageNet weights belong to",
        spec=InputSpec(size=224, resize=256),
        recipe="modern",
        low_precision_pays=True,
        activation="ReLU",
        pooling="max 3x3, stride 2",
        regularization="dropout 0.5, weight decay, augmentation",
        normalization="none",
        layers=8,
        registered_as="alexnet_2014",
    ),
)
