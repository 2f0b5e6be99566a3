"""The run folder's two files: what is in them, and what is said when they are not right."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from alexnet.errors import UsageError
from alexnet.models import LeNet5Dense, Network, create_model, load_run, model_entry, save_run

build: Callable[..., Any] = create_model  # networks have more attributes than nn.Module


CLASSES = ("cat", "dog", "eel")


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    network = build("lenet5_dense", num_classes=3, image_size=28, dropout=0.1)
    spec = model_entry("lenet5_dense").spec.replace(size=28, resize=24)
    metrics = {"top1": 0.5}
    save_run(
        tmp_path / "run",
        network,
        classes=CLASSES,
        spec=spec,
        metrics=metrics,
        extra={"data": "mnist-5k"},
    )
    return tmp_path / "run"


def test_files(run):
    assert sorted(path.name for path in run.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((run / "config.json").read_text())
    assert list(config)[:3] == ["format_version", "model", "arguments"]
    assert config["model"] == "lenet5_dense"
    assert config["arguments"]["dropout"] == 0.1
    assert config["arguments"]["activation"] == "tanh"  # the defaults too
    assert config["classes"] == [*CLASSES]
    assert config["metrics"] == {"top1": 0.5}
    assert config["data"] == "mnist-5k"
    assert {"python", "torch", "alexnet"} <= config["versions"].keys()
    with safe_open(run / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "format_version": "1"}
        assert "c1.weight" in set(file.keys())


def test_load(run):
    loaded = load_run(run)
    assert loaded.classes == CLASSES
    assert (loaded.spec.size, loaded.spec.resize) == (28, 24)
    assert loaded.config["metrics"] == {"top1": 0.5}
    assert isinstance(loaded.network, LeNet5Dense)
    assert not loaded.network.training
    assert loaded.network.drop6.p == 0.1


def test_save_again_keeps_classes_and_input(run, tmp_path):
    first = load_run(run)
    assert isinstance(first.network, Network)
    first.network.save_pretrained(tmp_path / "again")
    again = load_run(tmp_path / "again")
    assert (again.classes, again.spec) == (CLASSES, first.spec)


def test_networks_made_without_the_registry(tmp_path):
    network = LeNet5Dense(num_classes=2, activation="relu").eval()
    network.save_pretrained(tmp_path)
    again = load_run(tmp_path).network
    for seed in range(20):  # to the bit: sums depend on where in memory the weights begin
        x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(again(x), network(x))


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:resnet10t"])
def test_other_libraries(name, tmp_path):
    network = build(name, num_classes=2).eval()
    save_run(tmp_path, network, classes=("a", "b"), spec=model_entry(name).spec)
    again = load_run(tmp_path)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.network(x), network(x))


def test_half_written_or_foreign_folders(run):
    (run / "model.safetensors").rename(run / "away")
    with pytest.raises(UsageError, match=r"run has no model.safetensors: .*--resume"):
        load_run(run)
    (run / "away").rename(run / "model.safetensors")
    (run / "config.json").rename(run / "away")
    with pytest.raises(UsageError, match=r"run has no config.json"):
        load_run(run)
    for content in ("{}", '{"model": "lenet5"}', '{"model": 3, "arguments": 4, "input": 5}'):
        (run / "config.json").write_text(content)
        with pytest.raises(UsageError, match=r"is not a run's") as caught:
            load_run(run)
        assert "\n" not in str(caught.value)


def test_weights_of_another_architecture(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "model": "lenet1989", "arguments": {}}))
    with pytest.raises(UsageError, match=r"model.safetensors do not fit lenet1989 .*architecture"):
        load_run(run)
    config["arguments"]["num_classes"] = 10
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match=r"3 classes and num_classes=10"):
        load_run(run)


def test_a_class_that_was_deleted_from_the_config(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "classes": config["classes"][:2]}))
    with pytest.raises(UsageError, match=r"config.json names 2 classes for 3 outputs: restore it"):
        load_run(run)


def test_a_newer_format_is_refused(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(UsageError, match=r"newer alexnet"):
        load_run(run)


def test_wrong_sources(run, tmp_path):
    for source, text in (
        (tmp_path / "nowhere", "no run folder .*nowhere"),
        (run / "config.json", "is a file"),
        ("imagenet1k-features", "cannot classify: fine-tune"),
        ("imagenet2k", "did you mean 'imagenet1k'"),
    ):
        with pytest.raises(UsageError, match=text):
            load_run(source)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(UsageError, match=r"a Linear cannot be built again by name"):
        save_run(tmp_path, nn.Linear(2, 2))
    with pytest.raises(UsageError, match=r"3 class names for 10 outputs"):
        save_run(tmp_path, build("lenet5"), classes=CLASSES)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write"):
        save_run(tmp_path / "file" / "run", build("lenet5"))


def test_from_pretrained_of_another_class(run):
    assert isinstance(Network.from_pretrained(run), LeNet5Dense)
    from alexnet.models import LeNet5

    with pytest.raises(UsageError, match=r"holds a LeNet5Dense, not a LeNet5"):
        LeNet5.from_pretrained(run)


def test_lenet5_tables_survive(tmp_path):
    network = build("lenet5", num_classes=3).eval()
    network.save_pretrained(tmp_path)
    loaded = load_run(tmp_path).network
    assert not any(buffer.is_meta for buffer in loaded.buffers())
    x = torch.randn(1, 1, 32, 32)
    assert torch.equal(loaded(x), network(x))


def test_weights_are_loaded_without_a_compiler(tmp_path):
    save_run(tmp_path / "run", create_model("alexnet", image_size=67, hidden=16))
    code = (
        "import sys, torch; from alexnet.models.pretrained import load_run; "
        f"load_run({str(tmp_path / 'run')!r}).network(torch.zeros(1, 3, 67, 67)); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
