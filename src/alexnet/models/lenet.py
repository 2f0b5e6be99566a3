"""LeNet: 1989, 1998, and the form that textbooks draw.

``lenet5`` (LeCun, Bottou, Bengio, Haffner 1998, section II.B and figure 2), 1x32x32 in:

    C1      6 kernels 5x5                     6x28x28       156 parameters
    S2      2x2 sum, coefficient and bias     6x14x14        12
    C3      16 kernels 5x5, sparse (table I)  16x10x10    1,516
    S4      2x2 sum, coefficient and bias     16x5x5         32
    C5      120 kernels 5x5                   120x1x1    48,120
    F6      84                                84         10,164
    output  10 Euclidean RBF                  10              0 (+ 840 fixed)
                                              total      60,000

Every layer up to F6 is squashed by 1.7159 tanh(2x/3).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.layers import (
    ACTIVATIONS,
    Activation,
    Dropout,
    EuclideanRBF,
    ScaledTanh,
    SparseConv2d,
    TrainableSubsampling,
    UnitBias,
    check_at_least,
    check_choice,
    check_probability,
    digit_codes,
    map_loss,
    random_codes,
)
from alexnet.layers.lenet_stage import cover, stage_means
from alexnet.layers.watched import watched
from alexnet.models.contract import Network, Step

C3_TABLE: tuple[tuple[int, ...], ...] = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
"""Table I of the 1998 paper: which of S2's six maps each of C3's sixteen reads (60 pairs)."""

LENET_POOLINGS = ("average", "max")


class LeNet5(Network):
    """LeNet-5, exact: sparse C3, trainable sub-sampling, scaled tanh, RBF output.

    The logits are minus the squared distances to the classes' codes (equation 7), the loss is the
    paper's equation 9 (:func:`alexnet.layers.map_loss`). Ten classes use the bitmaps of the digits;
    any other number uses fixed random codes of +1 and -1 from the seed 1998.

    Weights start uniformly within 2.4 / fan-in (appendix A), the sub-sampling layers as average
    pooling. C5 is a convolution whose map is 1x1 for a 32x32 input; at another ``image_size`` it
    covers the whole of S4.

    Args:
        num_classes: number of classes.
        in_chans: channels of the input; C1 reads them all.
        image_size: side of the input in pixels, at least 16.
        activation: ``"scaled_tanh"`` (the paper's), ``"tanh"``, ``"sigmoid"`` or ``"relu"``.
    """

    model_name = "lenet5"
    classifier_name = "output"

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        image_size: int = 32,
        *,
        activation: Activation = "scaled_tanh",
    ) -> None:
        super().__init__()
        check_at_least(1, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        check_choice("activation", activation, ACTIVATIONS)
        side = _s4_side(image_size)
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features, self.head_hidden_size = 120, 84
        act = ACTIVATIONS[activation]
        self.c1 = nn.Conv2d(in_chans, 6, 5)  # 6x28x28
        self.act1 = act()
        self.s2 = TrainableSubsampling(6)  # 6x14x14
        self.act2 = act()
        self.c3 = SparseConv2d(6, C3_TABLE, 5)  # 16x10x10
        self.act3 = act()
        self.s4 = TrainableSubsampling(16)  # 16x5x5
        self.act4 = act()
        self.c5 = nn.Conv2d(16, 120, side)  # 120x1x1
        self.act5 = act()
        self.f6 = nn.Linear(120, 84)
        self.act6 = act()
        self.output = self.new_classifier(num_classes)
        init_by_fan_in(self)

    def steps(self) -> list[Step]:
        """c1, s2, c3, s4, c5, each squashed."""
        return [
            ("c1", (self.c1, self.act1)),
            ("s2", (self.s2, self.act2)),
            ("c3", (self.c3, self.act3)),
            ("s4", (self.s4, self.act4)),
            ("c5", (self.c5, self.act5)),
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """:meth:`steps`, a convolution with its squashing and sub-sampling in one pass."""
        if watched(*self.children()):
            return super().forward_features(x)
        x = self.act2(self.s2.scale(stage_means(x, self.c1, self.act1)))
        x = self.act4(self.s4.scale(stage_means(x, self.c3, self.act3)))
        return self.act5(cover(x, self.c5))

    def head_steps(self) -> list[Step]:
        """f6, squashed."""
        return [("f6", (self.f6, self.act6))]

    def new_classifier(self, num_classes: int) -> EuclideanRBF:
        """The RBF output: digits' bitmaps for ten classes, random codes for any other number."""
        return EuclideanRBF(digit_codes() if num_classes == 10 else random_codes(num_classes))

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Equation 9; targets ``[N]`` or ``[N, num_classes]``."""
        if label_smoothing:
            if not targets.is_floating_point():
                targets = F.one_hot(targets, self.num_classes).float()
            targets = targets * (1 - label_smoothing) + label_smoothing / self.num_classes
        return map_loss(logits, targets)


class LeNet5Dense(Network):
    """The textbook LeNet-5: every C3 map reads all of S2, plain pooling, a linear output.

    61,706 parameters for 1x32x32 and ten classes; trained by cross-entropy.

    Args:
        num_classes: outputs of the last layer.
        in_chans: channels of the input.
        image_size: side of the input in pixels, at least 16.
        activation: ``"tanh"`` (the default), ``"scaled_tanh"``, ``"sigmoid"`` or ``"relu"``.
        pooling: ``"average"`` or ``"max"``, 2x2.
        dropout: probability of dropping a unit of F6.
    """

    model_name = "lenet5_dense"
    classifier_name = "output"

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        image_size: int = 32,
        *,
        activation: Activation = "tanh",
        pooling: Literal["average", "max"] = "average",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_probability(dropout=dropout)
        check_at_least(1, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("pooling", pooling, LENET_POOLINGS)
        side = _s4_side(image_size)
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features, self.head_hidden_size = 120, 84
        act = ACTIVATIONS[activation]
        pool = nn.AvgPool2d if pooling == "average" else nn.MaxPool2d
        self.c1 = nn.Conv2d(in_chans, 6, 5)  # 6x28x28
        self.act1 = act()
        self.s2 = pool(2)  # 6x14x14
        self.c3 = nn.Conv2d(6, 16, 5)  # 16x10x10
        self.act3 = act()
        self.s4 = pool(2)  # 16x5x5
        self.c5 = nn.Conv2d(16, 120, side)  # 120x1x1
        self.act5 = act()
        self.f6 = nn.Linear(120, 84)
        self.act6 = act()
        self.drop6 = Dropout(dropout)
        self.output = nn.Linear(84, num_classes)

    def steps(self) -> list[Step]:
        """c1, s2, c3, s4, c5."""
        return [
            ("c1", (self.c1, self.act1)),
            ("s2", (self.s2,)),
            ("c3", (self.c3, self.act3)),
            ("s4", (self.s4,)),
            ("c5", (self.c5, self.act5)),
        ]

    def forward_features(self, x: Tensor) -> Tensor:
        """:meth:`steps`, a convolution with its squashing and average pooling in one pass."""
        if isinstance(self.s2, nn.MaxPool2d) or watched(*self.children()):
            return super().forward_features(x)
        x = stage_means(x, self.c1, self.act1)
        x = stage_means(x, self.c3, self.act3)
        return self.act5(cover(x, self.c5))

    def head_steps(self) -> list[Step]:
        """f6."""
        return [("f6", (self.f6, self.act6, self.drop6))]

    def new_classifier(self, num_classes: int) -> nn.Linear:
        """The linear output."""
        return nn.Linear(self.head_hidden_size, num_classes)


# The 1989 paper says that each H2 map reads 8 of H1's 12 and 'the scheme will not be described
# here'. We assume the eight that follow the map's own number, around the ring of twelve.
H2_TABLE: tuple[tuple[int, ...], ...] = tuple(
    tuple(sorted((first + step) % 12 for step in range(8))) for first in range(12)
)


class LeNet1989(Network):
    """The 1989 network ('Backpropagation applied to handwritten zip code recognition').

        H1      12 kernels 5x5, stride 2, a bias a unit          12x8x8     1,068
        H2      12 kernels 5x5 on 8 of 12 maps, stride 2, same   12x4x4     2,592
        H3      30                                               30         5,790
        output  10                                               10           310
                                                                 total      9,760

    Input 1x16x16 from -1 (background) to 1; beyond the border both H1 and H2 see -1 (section 3.3),
    of which two pixels all around are needed. Every layer, the output included, is squashed by the
    scaled tanh; the paper trains by mean squared error to targets of +1 and -1, and so does
    :meth:`loss`. Weights start uniformly within 2.4 / fan-in.

    Args:
        num_classes: number of outputs.
        in_chans: channels of the input.
        image_size: side of the input in pixels, at least 8.
        activation: ``"scaled_tanh"`` (the paper's), ``"tanh"``, ``"sigmoid"`` or ``"relu"``.
    """

    model_name = "lenet1989"
    classifier_name = "output"

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 1,
        image_size: int = 16,
        *,
        activation: Activation = "scaled_tanh",
    ) -> None:
        super().__init__()
        check_at_least(1, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        check_choice("activation", activation, ACTIVATIONS)
        if image_size < 8:
            raise ValueError(f"image_size={image_size} is too small for lenet1989: at least 8")
        side1 = (image_size + 4 - 5) // 2 + 1
        side2 = (side1 + 4 - 5) // 2 + 1
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features, self.head_hidden_size = 12, 30
        act = ACTIVATIONS[activation]
        self.border1 = nn.ConstantPad2d(2, -1.0)
        self.h1 = nn.Conv2d(in_chans, 12, 5, stride=2, bias=False)  # 12x8x8
        self.bias1 = UnitBias(12, side1)
        self.act1 = act()
        self.border2 = nn.ConstantPad2d(2, -1.0)
        self.h2 = SparseConv2d(12, H2_TABLE, 5, stride=2, bias=False)  # 12x4x4
        self.bias2 = UnitBias(12, side2)
        self.act2 = act()
        self.h3 = nn.Linear(12 * side2 * side2, 30)
        self.act3 = act()
        self.output = nn.Linear(30, num_classes)
        init_by_fan_in(self)

    def steps(self) -> list[Step]:
        """h1, h2."""
        return [
            ("h1", (self.border1, self.h1, self.bias1, self.act1)),
            ("h2", (self.border2, self.h2, self.bias2, self.act2)),
        ]

    def head_steps(self) -> list[Step]:
        """h3."""
        return [("h3", (self.h3, self.act3))]

    def new_classifier(self, num_classes: int) -> nn.Linear:
        """The output layer; its squashing belongs to the loss, so that logits stay logits."""
        output = nn.Linear(self.head_hidden_size, num_classes)
        init_by_fan_in(output)
        return output

    def loss(self, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean squared error of the squashed outputs to +1 for the class and -1 for the others."""
        if not targets.is_floating_point():
            targets = F.one_hot(targets, self.num_classes).to(logits.dtype)
        targets = targets * (1 - label_smoothing) + label_smoothing / self.num_classes  # 0 to 1
        squashed = ScaledTanh()(logits)
        return (squashed - (targets * 2 - 1)).square().sum(1).mean()


def init_by_fan_in(module: nn.Module) -> None:
    """Draw weights uniformly within 2.4 / fan-in and set biases to 0 (1998, appendix A).

    Convolutions and linear layers below ``module`` are drawn, each output by its own fan-in.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, SparseConv2d):
            layer.reset_parameters()


def _s4_side(image_size: int) -> int:
    """Side of S4's maps: 5 for 32 pixels."""
    side = ((image_size - 4) // 2 - 4) // 2
    if side < 1:
        raise ValueError(f"image_size={image_size} is too small for LeNet-5: at least 16 pixels")
    return side
