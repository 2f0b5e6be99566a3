"""The paper's network for CIFAR-10 (Krizhevsky, Sutskever, Hinton, NIPS 2012)."""

from __future__ import annotations

from torch import nn

from alexnet.layers import (
    ACTIVATIONS,
    Activation,
    Conv2d,
    Dropout,
    LocallyConnected2d,
    LocalResponseNorm,
    MaxPool2d,
    check_at_least,
    check_choice,
    check_probability,
)
from alexnet.models.alexnet import POOLINGS, Norm, Pooling
from alexnet.models.contract import Network, Step


class AlexNetCifar(Network):
    """The paper's four-layer network for CIFAR-10 (sections 3.1 and 3.3).

    The paper says that it has four layers and errs on 13% of the test pictures, on 11% with
    normalization, and leaves the rest to its code, cuda-convnet's ``layers-conv-local-11pct.cfg``:

        conv1   64 kernels 5x5, ReLU, max-pool 3/2, LRN     64x16x16 (32x32 in)
        conv2   64 kernels 5x5, ReLU, LRN, max-pool 3/2     64x8x8
        local3  64 kernels 3x3, not shared, ReLU            64x8x8
        local4  32 kernels 3x3, not shared, ReLU            32x8x8
        fc5     10, softmax

    LRN is over 9 maps with alpha 0.001 (divided by 9), beta 0.75 and k = 1, and pooling rounds
    sizes up, as there. (An older state of the file has LRN over 5 maps before both poolings and 32
    kernels in local3.) Ours, for ablations: dropout before fc5 (off), and weights that start as
    PyTorch's do rather than with the file's deviations (0.0001, 0.01, 0.04, 0.04, 0.01).

    Args:
        num_classes: outputs of fc5.
        in_chans: channels of the input.
        image_size: side of the input in pixels, at least 8.
        activation: as in :class:`AlexNet`.
        norm: ``"lrn"``, ``"batch"`` (in LRN's place) or ``"none"``.
        pooling: as in :class:`AlexNet`.
        dropout: probability of dropping an input of fc5.

    Raises:
        ValueError: an unknown choice, or an image too small.
    """

    model_name = "alexnet_cifar"
    classifier_name = "fc5"

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        image_size: int = 32,
        *,
        activation: Activation = "relu",
        norm: Norm = "lrn",
        pooling: Pooling = "overlapping",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_at_least(1, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("norm", norm, ("lrn", "batch", "none"))
        check_choice("pooling", pooling, POOLINGS)
        check_probability(dropout=dropout)
        if image_size < 8:
            raise ValueError(f"image_size={image_size} is too small: at least 8 pixels")
        window = 2 if pooling == "plain" else 3
        side = image_size
        for _ in range(2):
            side = -((window - side) // 2) + 1  # rounded up
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features, self.head_hidden_size = 32, 32 * side * side
        act = ACTIVATIONS[activation]
        self.conv1 = Conv2d(in_chans, 64, 5, padding=2)
        self.act1 = act()
        self.pool1 = _ceil_pool(pooling)
        self.norm1 = _cifar_norm(norm)
        self.conv2 = Conv2d(64, 64, 5, padding=2)
        self.act2 = act()
        self.norm2 = _cifar_norm(norm)
        self.pool2 = _ceil_pool(pooling)
        self.local3 = LocallyConnected2d(64, 64, side, 3, padding=1)
        self.act3 = act()
        self.local4 = LocallyConnected2d(64, 32, side, 3, padding=1)
        self.act4 = act()
        self.drop4 = Dropout(dropout)
        self.fc5 = nn.Linear(self.head_hidden_size, num_classes)

    def steps(self) -> list[Step]:
        """conv1, pool1, norm1, conv2, norm2, pool2, local3, local4."""
        rows: list[Step] = [
            ("conv1", (self.conv1, self.act1)),
            ("pool1", (self.pool1,)),
            ("norm1", (self.norm1,)),
            ("conv2", (self.conv2, self.act2)),
            ("norm2", (self.norm2,)),
            ("pool2", (self.pool2,)),
            ("local3", (self.local3, self.act3)),
            ("local4", (self.local4, self.act4)),
        ]
        return [row for row in rows if not isinstance(row[1][0], nn.Identity)]

    def head_steps(self) -> list[Step]:
        """Nothing but dropout: the classifier reads the flattened local4."""
        return [("flat", (self.drop4,))]

    def new_classifier(self, num_classes: int) -> nn.Linear:
        """fc5."""
        return nn.Linear(self.head_hidden_size, num_classes)


def _ceil_pool(pooling: str) -> nn.Module:
    if pooling == "average":
        return nn.AvgPool2d(3, 2, ceil_mode=True)
    return MaxPool2d(3 if pooling == "overlapping" else 2, 2, ceil_mode=True)


def _cifar_norm(norm: str) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(64)
    return LocalResponseNorm(9, alpha=0.001, beta=0.75, k=1.0) if norm == "lrn" else nn.Identity()
