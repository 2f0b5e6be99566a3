"""The networks: by name, layer by layer, with their weights, saved and loaded."""

from alexnet.models.alexnet import AlexNet
from alexnet.models.cifar import AlexNetCifar
from alexnet.models.contract import Network
from alexnet.models.entries import ModelEntry
from alexnet.models.lenet import LeNet5, LeNet5Dense, LeNet1989
from alexnet.models.pretrained import LoadedModel, load_run, save_run
from alexnet.models.registry import create_model, input_spec, list_models, model_entry
from alexnet.models.state import from_torchvision, load_into, to_torchvision
from alexnet.models.summary import LayerRow, count_macs, count_parameters, layer_table
from alexnet.models.weights import Weights, get_weights, list_weights, load_state
from alexnet.models.zoo import register

__all__ = [
    "AlexNet",
    "AlexNetCifar",
    "LayerRow",
    "LeNet5",
    "LeNet5Dense",
    "LeNet1989",
    "LoadedModel",
    "ModelEntry",
    "Network",
    "Weights",
    "count_macs",
    "count_parameters",
    "create_model",
    "from_torchvision",
    "get_weights",
    "input_spec",
    "layer_table",
    "list_models",
    "list_weights",
    "load_into",
    "load_run",
    "load_state",
    "model_entry",
    "register",
    "save_run",
    "to_torchvision",
]
