"""AlexNet (Krizhevsky, Sutskever, Hinton, NIPS 2012), section 3.5 and figure 2, and its variants.

The table of the paper, for ``alexnet`` on 3x227x227 (sizes are channels x height x width):

    conv1  96 kernels 11x11, stride 4            96x55x55     34,944 parameters
           ReLU, LRN, max-pool 3/2               96x27x27
    conv2  256 kernels 5x5, two towers           256x27x27   307,456
           ReLU, LRN, max-pool 3/2               256x13x13
    conv3  384 kernels 3x3, both towers          384x13x13   885,120
    conv4  384 kernels 3x3, two towers           384x13x13   663,936
    conv5  256 kernels 3x3, two towers           256x13x13   442,624
           ReLU, max-pool 3/2                    256x6x6
    fc6    4096, ReLU, dropout 0.5               4096     37,752,832
    fc7    4096, ReLU, dropout 0.5               4096     16,781,312
    fc8    1000, softmax                         1000      4,097,000
                                                 total    60,965,224

Where the paper is ambiguous:
  * The input. The paper says 224x224; 55x55 maps follow from it only with the implicit border of
    the original code. We take 227 without padding, the field's standard stand-in.
  * LRN. The paper's formula multiplies the sum of squares by alpha = 1e-4 and 'N is the total
    number of kernels in the layer'; the original code divides alpha by n and normalizes within
    each tower. ``preset`` chooses (see :class:`AlexNet`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from alexnet.layers import (
    ACTIVATIONS,
    Activation,
    Conv2d,
    Dropout,
    LocalResponseNorm,
    MaxPool2d,
    ScaledAt,
    SpatialResponseNorm,
    check_at_least,
    check_choice,
)
from alexnet.layers.watched import watched
from alexnet.models.contract import Network, Step

Norm = Literal["lrn", "batch", "none"]
Pooling = Literal["overlapping", "plain", "average"]
Preset = Literal["paper", "original"]

POOLINGS: dict[str, Callable[[], nn.Module]] = {
    "overlapping": lambda: MaxPool2d(3, 2),
    "plain": lambda: MaxPool2d(2, 2),
    "average": lambda: nn.AvgPool2d(3, 2),
}


class AlexNet(Network):
    """Five convolutions and three fully connected layers.

    Args:
        num_classes: outputs of fc8.
        in_chans: channels of the input.
        image_size: side of the input in pixels; fc6 is sized to match.
        groups: 2 is the paper's two towers (conv2, conv4 and conv5 read their own half; conv3 and
            the fully connected layers read both); 1 is one tower.
        widths: kernels of conv1 to conv5.
        stem_padding: pixels of padding of conv1.
        activation: ``"relu"``, ``"tanh"``, ``"scaled_tanh"`` or ``"sigmoid"``.
        norm: ``"lrn"`` after conv1 and conv2, ``"batch"`` between every convolution and its
            activation (convolutions then have no bias), or ``"none"``.
        pooling: ``"overlapping"`` (max 3/2), ``"plain"`` (max 2/2) or ``"average"`` (3/2).
        dropout: probability of dropping a unit of fc6 and fc7.
        dropout_scaled_at: ``"training"``, as is the habit, or ``"test"``, as in the paper (section
            4.2) and its code: see :class:`alexnet.layers.Dropout`.
        dropout_position: ``"after"`` each of fc6 and fc7, as in the paper, or ``"before"``, as in
            torchvision's network.
        hidden: units of fc6 and of fc7; 0 leaves both out, and fc8 reads pool5 (the network for
            a folder of pictures, where there are features to start from and no fc6 and fc7).
        preset: ``"paper"``, the prose of 2012: LRN with alpha times the sum, across all channels;
            every weight from N(0, 0.01). ``"original"``, the network that the original code
            trained (its net #145): conv3 to conv5 from N(0, 0.03); layer 1 is convolution, LRN,
            pooling, ReLU; LRN divides alpha by n and stays within a tower; a second, within-map
            5x5 normalization follows LRN 2. Both have biases of 1 in conv2, conv4, conv5, fc6 and
            fc7 and 0 elsewhere (section 5).
        init: ``"paper"`` as above, or ``"default"``, PyTorch's.

    Raises:
        ValueError: an unknown choice, or an image too small for the five stages.
    """

    model_name = "alexnet"
    classifier_name = "fc8"

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        image_size: int = 227,
        *,
        groups: int = 2,
        widths: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256),
        stem_padding: int = 0,
        activation: Activation = "relu",
        norm: Norm = "lrn",
        pooling: Pooling = "overlapping",
        dropout: float = 0.5,
        dropout_scaled_at: ScaledAt = "training",
        dropout_position: Literal["after", "before"] = "after",
        hidden: int = 4096,
        preset: Preset = "paper",
        init: Literal["paper", "default"] = "paper",
    ) -> None:
        super().__init__()
        check_at_least(1, num_classes=num_classes, in_chans=in_chans, image_size=image_size)
        check_choice("activation", activation, ACTIVATIONS)
        check_choice("norm", norm, ("lrn", "batch", "none"))
        check_choice("pooling", pooling, POOLINGS)
        check_choice("preset", preset, ("paper", "original"))
        check_choice("init", init, ("paper", "default"))
        check_choice("dropout_position", dropout_position, ("after", "before"))
        check_choice("groups", groups, (1, 2))
        self.num_classes, self.in_chans, self.image_size = num_classes, in_chans, image_size
        self.num_features = widths[4]
        self.norm, self.preset, self.dropout_position = norm, preset, dropout_position
        bias = norm != "batch"
        act, pool = ACTIVATIONS[activation], POOLINGS[pooling]
        side = _map_side(image_size, stem_padding, pooling)

        # Shapes in the comments are those of the defaults, 3x227x227 in.
        self.conv1 = nn.Conv2d(in_chans, widths[0], 11, 4, stem_padding, bias=bias)  # 96x55x55
        self.norm1 = self._new_norm(1, widths[0], groups)
        self.act1 = act()
        self.pool1 = pool()  # 96x27x27
        self.conv2 = Conv2d(widths[0], widths[1], 5, 1, 2, groups=groups, bias=bias)  # 256x27x27
        self.norm2 = self._new_norm(2, widths[1], groups)
        self.act2 = act()
        self.pool2 = pool()  # 256x13x13
        self.conv3 = Conv2d(widths[1], widths[2], 3, 1, 1, bias=bias)  # 384x13x13
        self.norm3 = self._new_norm(3, widths[2], groups)
        self.act3 = act()
        self.conv4 = Conv2d(widths[2], widths[3], 3, 1, 1, groups=groups, bias=bias)  # 384x13x13
        self.norm4 = self._new_norm(4, widths[3], groups)
        self.act4 = act()
        self.conv5 = Conv2d(widths[3], widths[4], 3, 1, 1, groups=groups, bias=bias)  # 256x13x13
        self.norm5 = self._new_norm(5, widths[4], groups)
        self.act5 = act()
        self.pool5 = pool()  # 256x6x6
        flat = widths[4] * side * side  # 9,216
        self.head_hidden_size = hidden or flat
        if hidden:
            self.fc6 = nn.Linear(flat, hidden)
            self.act6 = act()
            self.drop6 = Dropout(dropout, dropout_scaled_at)
            self.fc7 = nn.Linear(hidden, hidden)
            self.act7 = act()
            self.drop7 = Dropout(dropout, dropout_scaled_at)
        self.fc8 = nn.Linear(self.head_hidden_size, num_classes)
        self.init = init
        if init == "paper":
            self._init_paper()

    def _new_norm(self, layer: int, channels: int, towers: int) -> nn.Module:
        if self.norm == "batch":
            return nn.BatchNorm2d(channels)
        if self.norm == "none" or layer > 2:
            return nn.Identity()
        if self.preset == "paper":
            return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, alpha_mode="sum")
        response = LocalResponseNorm(5, 1e-4, 0.75, 2.0, alpha_mode="mean", groups=towers)
        if layer == 1:
            return response
        return nn.Sequential(response, SpatialResponseNorm(5, alpha=0.001, beta=0.75))

    def _init_paper(self) -> None:
        """Section 5 of the paper; with batch norm, He's deviation for the convolutions."""
        if self.conv1.weight.is_meta:  # torch would load its compiler to draw nothing
            return
        ones = () if self.norm == "batch" else ("conv2", "conv4", "conv5", "fc6", "fc7")
        for name, module in self.named_children():
            if not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            if self.norm == "batch" and isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif self.preset == "original" and name in ("conv3", "conv4", "conv5"):
                nn.init.normal_(module.weight, std=0.03)
            else:
                nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.constant_(module.bias, 1.0 if name in ones else 0.0)

    def steps(self) -> list[Step]:
        """conv1, norm1, pool1, conv2, norm2, pool2, conv3, conv4, conv5, pool5.

        ``convN`` is the map after its ReLU and before LRN (after batch norm and ReLU where that
        is the norm; before both in the original code's layer 1, which pools first).
        """
        rows: list[Step] = []
        for n in range(1, 6):
            conv, norm, act = (self.get_submodule(f"{kind}{n}") for kind in ("conv", "norm", "act"))
            pool = getattr(self, f"pool{n}", None)
            if self.norm == "batch":
                rows.append((f"conv{n}", (conv, norm, act)))
            elif self.preset == "original" and n == 1 and pool is not None:
                rows += [("conv1", (conv,)), ("norm1", (norm,)), ("pool1", (pool, act))]
                continue
            else:
                rows.append((f"conv{n}", (conv, act)))
                if not isinstance(norm, nn.Identity):
                    rows.append((f"norm{n}", (norm,)))
            if pool is not None:
                rows.append((f"pool{n}", (pool,)))
        return rows

    def forward_features(self, x: Tensor) -> Tensor:
        """:meth:`steps`, a ReLU and the response normalization after it in one pass."""
        rectify = False
        modules = [module for _, row in self.steps() for module in row]
        for module, after in itertools.zip_longest(modules, modules[1:]):
            pair = type(module) is nn.ReLU and type(after) is LocalResponseNorm
            if pair and not watched(module, after):
                rectify = True
                continue
            x = module(x, rectify=True) if rectify else module(x)
            rectify = False
        return x

    def head_steps(self) -> list[Step]:
        """fc6 and fc7, each with its activation and dropout; nothing where they are left out."""
        if not hasattr(self, "fc6"):
            return []
        if self.dropout_position == "before":
            return [
                ("fc6", (self.drop6, self.fc6, self.act6)),
                ("fc7", (self.drop7, self.fc7, self.act7)),
            ]
        return [
            ("fc6", (self.fc6, self.act6, self.drop6)),
            ("fc7", (self.fc7, self.act7, self.drop7)),
        ]

    def new_classifier(self, num_classes: int) -> nn.Linear:
        """fc8, from N(0, 0.01) and biases of 0 (section 5)."""
        fc8 = nn.Linear(self.head_hidden_size, num_classes)
        if self.init == "paper":
            nn.init.normal_(fc8.weight, std=0.01)
            nn.init.zeros_(fc8.bias)
        return fc8


def _map_side(image_size: int, stem_padding: int, pooling: str) -> int:
    """Side of pool5's map: 6 for 227 pixels."""
    window = 2 if pooling == "plain" else 3
    side = (image_size + 2 * stem_padding - 11) // 4 + 1
    for _ in range(3):
        side = (side - window) // 2 + 1
    if side < 1:
        conv1 = 8 if pooling == "plain" else 15  # what three poolings bring down to 1
        least = 11 + 4 * (conv1 - 1) - 2 * stem_padding
        raise ValueError(
            f"image_size={image_size} is too small for AlexNet's poolings: at least {least} pixels"
        )
    return side
