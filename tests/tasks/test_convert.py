from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from alexnet.errors import UsageError
from alexnet.models import create_model
from alexnet.tasks.convert import convert_weights


def test_there_and_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours, theirs = create_model("alexnet_owt", num_classes=3), tmp_path / "theirs.safetensors"
    torch.save(ours.state_dict(), tmp_path / "ours.pth")
    assert convert_weights(str(tmp_path / "ours.pth"), theirs, "torchvision") == 16
    network = torchvision.models.alexnet(num_classes=3)
    network.load_state_dict(load_file(theirs))
    pictures = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(pictures), ours.eval()(pictures))
    back = tmp_path / "back.safetensors"
    convert_weights(str(theirs), back, "alexnet")
    for name, tensor in load_file(back).items():
        assert torch.equal(tensor, ours.state_dict()[name])


def test_the_bundled_features(tmp_path: Path) -> None:
    target = tmp_path / "features.safetensors"
    assert convert_weights("imagenet1k-features", target, "torchvision") == 10
    assert load_file(target)["features.0.weight"].shape == (64, 3, 11, 11)


def test_a_head_that_torchvision_has_not_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = create_model("alexnet_owt", num_classes=3, hidden=0, image_size=63)
    save_file(network.state_dict(), tmp_path / "ours.safetensors")
    convert_weights(str(tmp_path / "ours.safetensors"), tmp_path / "t.safetensors", "torchvision")
    assert "it fits the features alone; its classifier.6 reads the 256 values" in caplog.text
    theirs = load_file(tmp_path / "t.safetensors")
    features = {k.partition(".")[2]: v for k, v in theirs.items() if k.startswith("features.")}
    torchvision.models.alexnet().features.load_state_dict(features)


def test_a_pickle_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        convert_weights("imagenet1k-features", tmp_path / "x.pth", "torchvision")


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(create_model("lenet5").state_dict(), tmp_path / "lenet.pth")
    with pytest.raises(UsageError, match="weights of another network"):
        convert_weights(str(tmp_path / "lenet.pth"), tmp_path / "x.safetensors", "torchvision")
