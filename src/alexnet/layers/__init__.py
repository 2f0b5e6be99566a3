"""The layers that the papers use and that PyTorch lacks or reads differently."""

from alexnet.layers.activation import ACTIVATIONS, Activation, ScaledTanh
from alexnet.layers.choice import check_at_least, check_choice, check_probability
from alexnet.layers.conv import Conv2d
from alexnet.layers.dropout import Dropout, ScaledAt, number_masks
from alexnet.layers.lenet import (
    EuclideanRBF,
    SparseConv2d,
    TrainableSubsampling,
    UnitBias,
    digit_codes,
    map_loss,
    random_codes,
)
from alexnet.layers.local import LocallyConnected2d
from alexnet.layers.lrn import LocalResponseNorm, SpatialResponseNorm, local_response_norm
from alexnet.layers.max_pool import MaxPool2d

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Conv2d",
    "Dropout",
    "EuclideanRBF",
    "LocalResponseNorm",
    "LocallyConnected2d",
    "MaxPool2d",
    "ScaledAt",
    "ScaledTanh",
    "SparseConv2d",
    "SpatialResponseNorm",
    "TrainableSubsampling",
    "UnitBias",
    "check_at_least",
    "check_choice",
    "check_probability",
    "digit_codes",
    "local_response_norm",
    "map_loss",
    "number_masks",
    "random_codes",
]
