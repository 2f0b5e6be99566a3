"""Our networks through torchvision's and timm's own calls."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
import torchvision

from alexnet.errors import UsageError
from alexnet.models import list_models, model_entry, register

NAMES = {name: model_entry(name).registered_as for name in list_models()}


@pytest.fixture(scope="module", autouse=True)
def registered():
    register()
    register()  # changes nothing, warns of nothing


def test_names_do_not_clash():
    code = (
        "import timm, torchvision; "
        f"names = {sorted(map(str, NAMES.values()))!r}; "
        "print([n for n in names if timm.is_model(n) or n in torchvision.models.list_models()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "registered_as"), NAMES.items())
def test_both_registries(name, registered_as):
    assert registered_as in torchvision.models.list_models()
    assert timm.is_model(registered_as)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(registered_as, num_classes=7)
        other = timm.create_model(registered_as, num_classes=7)
    for network in (theirs, other):
        assert network.model_name == name
        assert network.num_classes == 7


def test_timm_s_arguments():
    network: Any = timm.create_model(
        "alexnet_2012", num_classes=7, in_chans=1, img_size=67, drop_rate=0.25, hidden=16
    ).eval()
    assert network(torch.randn(2, 1, 67, 67)).shape == (2, 7)
    assert network.drop6.p == 0.25
    headless = timm.create_model("alexnet_2012", num_classes=0, img_size=67, hidden=16)
    assert headless(torch.randn(1, 3, 67, 67)).shape == (1, 16)
    config = timm.get_pretrained_cfg("alexnet_2012")
    assert config is not None
    assert config.input_size == (3, 227, 227)
    data = timm.data.resolve_model_data_config(network)
    assert data["input_size"] == (1, 67, 67)
    assert len(timm.list_models(module="zoo")) == len(NAMES)


def test_weights_that_are_not_there():
    with pytest.raises(UsageError, match=r"no pretrained weights of the whole of alexnet"):
        timm.create_model("alexnet_2012", pretrained=True)
    with pytest.raises(UsageError, match=r"no pretrained weights"):
        torchvision.models.get_model("alexnet_2012", weights="DEFAULT")


def test_partial_weights_through_torchvision():
    network = torchvision.models.get_model(
        "alexnet_2014", weights="imagenet1k-features", num_classes=7, hidden=8
    )
    assert network.num_classes == 7
