"""Networks by name, their entries and input, ours and other libraries'."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from alexnet.errors import UsageError
from alexnet.models import create_model, input_spec, list_models, model_entry
from alexnet.spec import IMAGENET_MEAN
from alexnet.training.recipes import RECIPES

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


def test_names():
    assert list_models() == [
        *("lenet1989", "lenet5", "lenet5_dense", "alexnet", "alexnet_ungrouped", "alexnet_bn"),
        *("alexnet_cifar", "alexnet_owt"),
    ]
    years = {name: model_entry(name).year for name in list_models()}
    assert (years["lenet1989"], years["lenet5"], years["alexnet"]) == (1989, 1998, 2012)


@pytest.mark.parametrize("name", list_models())
def test_entries_are_complete(name):
    entry = model_entry(name)
    assert entry.name == name
    for field in dataclasses.fields(entry):
        assert getattr(entry, field.name) not in ("", None), field.name
    assert entry.recipe in RECIPES
    assert entry.low_precision_pays is not name.startswith("lenet")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("alxnet", "did you mean 'alexnet'"),
        ("lenet", "did you mean 'lenet5'"),
        ("zzz", "choose from: alexnet, "),
        ("torchvison:vgg11", "did you mean 'torchvision'"),
        ("torchvision:vgg1", "did you mean 'vgg1"),
        ("timm:resnt18", "did you mean 'resnet18'"),
    ],
)
def test_wrong_names_suggest(name, hint):
    with pytest.raises(UsageError, match=f"unknown .*{hint}") as caught:
        build(name)
    assert "\n" not in str(caught.value)


def test_input_spec_adapts():
    published = input_spec("alexnet_owt")
    assert (published.size, published.resize) == (224, 256)
    small = input_spec("alexnet_owt", 112)
    assert (small.size, small.resize, small.mean) == (112, 128, IMAGENET_MEAN)
    gray = input_spec("alexnet_owt", in_chans=1)
    assert gray.channel_order == "gray"
    assert gray.mean == (pytest.approx(sum(IMAGENET_MEAN) / 3),)
    rgb = input_spec("lenet5", in_chans=3)
    assert (rgb.channel_order, rgb.mean, rgb.pad) == ("rgb", (0.1,) * 3, 2)
    assert input_spec("lenet5", 64).crop == 60
    with pytest.raises(UsageError, match=r"in_chans=2"):
        input_spec("alexnet", in_chans=2)
    with pytest.raises(UsageError, match=r"image_size=4 is too small"):
        input_spec("lenet5", 4)


def test_lenet_inputs_have_the_papers_range():
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    lenet5 = input_spec("lenet5").normalize(ends.expand(2, 1, 28, 28))
    torch.testing.assert_close(lenet5[:, 0, 16, 16], torch.tensor([-0.1, 1.175]))
    torch.testing.assert_close(lenet5[1, 0, 0, 0], torch.tensor(-0.1))
    lenet1989 = input_spec("lenet1989").normalize(ends.expand(2, 1, 16, 16))
    torch.testing.assert_close(lenet1989[:, 0, 8, 8], torch.tensor([-1.0, 1.0]))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("torchvision:squeezenet1_1", {}),
        ("torchvision:googlenet", {"in_chans": 1}),
        ("torchvision:vit_b_32", {"image_size": 64}),
        ("timm:resnet18", {"in_chans": 1}),
        ("timm:vit_tiny_patch16_224", {"image_size": 64}),
    ],
)
def test_other_libraries(name, arguments):
    with torch.device("meta"):
        network = build(name, num_classes=5, **arguments)
        side = arguments.get("image_size", 96)
        x = torch.empty(2, arguments.get("in_chans", 3), side, side)
        assert network.train()(x).shape == (2, 5)
    assert network.model_name == name
    json.dumps(network.model_arguments)
    assert model_entry(name).year is not None
    assert network.pretrained_cfg["architecture"] == name


def test_input_of_other_libraries():
    assert input_spec("torchvision:inception_v3").size == 299
    assert (input_spec("torchvision:vgg11").size, input_spec("torchvision:vgg11").resize) == (
        224,
        256,
    )
    assert input_spec("timm:resnet18").size == 224
    assert input_spec("torchvision:vgg11", 64, 1).channels == 1


def test_other_libraries_errors_are_one_line():
    with pytest.raises(UsageError, match=r"cannot build torchvision:resnet18: .*widht") as caught:
        build("torchvision:resnet18", widht=3)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"unknown weights of torchvision:vgg11 'IMAGENET'.*V1"):
        build("torchvision:vgg11", weights="IMAGENET")
    with pytest.raises(UsageError, match=r"its weights as weights=\.\.\., by name or file"):
        model_entry("torchvision:resnet18").build(weights="DEFAULT")


def test_import_loads_none_of_the_heavy_libraries():
    code = (
        "import sys, alexnet.models; heavy = {'torchvision', 'timm', 'huggingface_hub'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_published_weights_that_cannot_be_had_are_one_line(tmp_path):
    """torchvision's from a cache folder with a damaged file, timm's without a network."""
    (tmp_path / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"damaged")
    code = (
        "from alexnet.models import create_model\n"
        "from alexnet.errors import AlexnetError\n"
        "for name in ('torchvision:squeezenet1_1', 'timm:resnet18'):\n"
        "    try:\n"
        "        create_model(name, weights='default')\n"
        "    except AlexnetError as error:\n"
        "        print(error.exit_code, error)\n"
    )
    settings = {"ALEXNET_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"2 {tmp_path}/squeezenet1_1-b8a52dc0.pth is damaged")
    assert second.startswith("3 cannot load the weights 'default' of timm:resnet18 (")
