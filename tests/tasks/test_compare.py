"""Networks side by side: trained, measured, written down, and not twice."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alexnet.data.sources import open_data
from alexnet.errors import FailedError, UsageError
from alexnet.models import create_model
from alexnet.tasks.comparison import compare
from alexnet.tasks.comparison.compare import _side
from alexnet.tasks.comparison.facts import activation_bytes, activations, describe, layers
from alexnet.tasks.predict import Classifier
from alexnet.tasks.train import train

Draw = Callable[..., Path]
MODELS = ["lenet5_dense", "alexnet", "torchvision:squeezenet1_1", "hog-svm"]
ONCE = {"training.epochs": 1, "data.test_fraction": 0.25}
FILLED = (
    "year", "authors", "layers", "activation", "pooling", "regularization", "normalization",
    "input", "parameters", "macs", "weight_bytes", "activation_bytes", "train_seconds",
    "images_per_second", "latency_ms", "top1", "top1_interval", "top5", "top5_interval",
    "initialized_from", "accelerator", "train_images", "test_images",
)  # fmt: skip


@pytest.fixture(scope="module")
def compared(draw_shapes: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    data = draw_shapes(folder / "shapes", per_class=16)
    compare(MODELS, data, folder / "out", image_size=67, settings=ONCE)
    return folder


def test_every_cell_is_filled(compared: Path) -> None:
    result = json.loads((compared / "out" / "compare.json").read_text())
    assert [row["name"] for row in result["models"]] == MODELS
    for row in result["models"]:
        for field in FILLED:
            assert row.get(field) not in (None, "", []), (row["name"], field)
        assert row["test_images"] == result["images"]["test"]
        assert row["train_images"] == result["images"]["train"]
        low, high = row["top1_interval"]
        assert low <= row["top1"] <= high
    lenet, alexnet, squeezenet, _ = result["models"]
    assert (lenet["layers"], alexnet["layers"], squeezenet["layers"]) == (5, 8, 18)
    assert lenet["input"] == [1, 32, 32]
    assert alexnet["input"] == squeezenet["input"] == [3, 67, 67]
    assert lenet["initialized_from"] == "random weights"


def test_all_that_is_written_says_the_same(compared: Path) -> None:
    out = compared / "out"
    rows = json.loads((out / "compare.json").read_text())["models"]
    with (out / "compare.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [float(row["top1"]) for row in written] == [row["top1"] for row in rows]
    table = (out / "compare.md").read_text().splitlines()
    assert table[0] == "|  | " + " | ".join(MODELS) + " |"
    assert len({line.count("|") for line in table}) == 1
    page = (out / "report.html").read_text()
    for expected in ("What accuracy costs", "squeezenet1_1", "hog-svm", "<svg"):
        assert expected in page


def test_started_again_it_trains_nothing(compared: Path) -> None:
    out = compared / "out"
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
    assert before
    rows = json.loads((out / "compare.json").read_text())["models"]
    again = compare(MODELS, compared / "shapes", out, image_size=67, settings=ONCE)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")} == before
    assert again["models"] == rows  # times, too, are those of the first measurement


def test_a_run_folder_is_taken_as_it_is(compared: Path, tmp_path: Path) -> None:
    run = shutil.copytree(compared / "out" / "lenet5_dense", tmp_path / "mine")
    result = compare([str(run)], compared / "shapes", tmp_path / "out", settings=ONCE)
    (row,) = result["models"]
    assert row["name"] == str(run)
    assert row["train_seconds"] is not None
    assert not (tmp_path / "out" / "mine").exists()


def test_fine_tuning_has_no_more_time_and_says_what_was_held_back(
    compared: Path, tmp_path: Path
) -> None:
    asked = {"data.test_fraction": 0.25}
    result = compare(
        ["alexnet_owt"], compared / "shapes", tmp_path, minutes=1e-4, image_size=67, settings=asked
    )
    (row,) = result["models"]
    assert row["initialized_from"] == "imagenet1k-features"
    assert row["epochs"] == 1
    assert row["train_images"] < result["images"]["train"]
    page = (tmp_path / "report.html").read_text()
    assert "some were held back to choose by for: alexnet_owt." in page
    assert "were held back" not in (compared / "out" / "report.html").read_text()


def test_pictures_that_came_since_are_refused(compared: Path, tmp_path: Path) -> None:
    data = shutil.copytree(compared / "shapes", tmp_path / "shapes")
    asked = {"training.epochs": 1}
    compare(["hog-svm"], data, tmp_path / "out", settings=asked)
    shutil.copy(data / "circle" / "0.png", data / "circle" / "more.png")
    with pytest.raises(UsageError, match=r"other pictures than when .*out was begun"):
        compare(["hog-svm"], data, tmp_path / "out", settings=asked)
    with pytest.raises(UsageError, match=r"otherwise \(minutes was 15\.0 and is 3\): choose"):
        compare(["hog-svm"], data, tmp_path / "out", settings=asked, minutes=3)


def test_data_without_a_test_part_are_refused(compared: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(compared / "shapes", tmp_path / "shapes" / part)
    with pytest.raises(UsageError, match="shapes has no test part: put pictures"):
        compare(["hog-svm"], tmp_path / "shapes", tmp_path / "out")


def test_a_run_that_learned_test_pictures_is_refused_before_anything_is_trained(
    compared: Path, tmp_path: Path
) -> None:
    run = compared / "out" / "lenet5_dense"
    other = {**ONCE, "data.seed": 1}
    with pytest.raises(UsageError, match=r"lenet5_dense learned from \d+ of the 12 test pictures"):
        compare(["lenet5_dense", str(run)], compared / "shapes", tmp_path / "out", settings=other)
    assert not (tmp_path / "out" / "lenet5_dense").exists()


def test_a_network_that_diverges_is_named_and_the_others_are_compared(
    compared: Path, tmp_path: Path
) -> None:
    asked = {**ONCE, "training.lr": 1e30, "training.clip_norm": 0.0}
    result = compare(
        ["alexnet_cifar", "hog-svm"], compared / "shapes", tmp_path / "out", settings=asked
    )
    assert [row["name"] for row in result["models"]] == ["hog-svm"]
    assert result["diverged"] == ["alexnet_cifar"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Without a row, for the loss is no longer a number: alexnet_cifar" in page
    with pytest.raises(FailedError, match="no network could be trained"):
        compare(["alexnet_cifar"], compared / "shapes", tmp_path / "out", settings=asked)


def test_what_was_chosen_otherwise_is_told_as_it_is(tmp_path: Path, compared: Path) -> None:
    told = {
        "model.activation": "tanh", "model.pooling": "average", "model.norm": "batch",
        "training.epochs": 1,
    }  # fmt: skip
    run = train(compared / "shapes", "alexnet_cifar", out=tmp_path / "run", settings=told).folder
    classifier = Classifier.load(run)
    pictures = open_data(str(compared / "shapes")).train
    facts = describe("alexnet_cifar", classifier, pictures)
    assert facts["activation"] == "tanh"
    assert "average" in facts["pooling"]
    assert facts["normalization"] == "batch"
    assert facts["layers"] == 4


def test_memory_of_batch_normalization_down_to_one_value_is_counted() -> None:
    network = create_model("torchvision:resnet18", num_classes=10)
    small, large = (activation_bytes(network, (3, size, size)) for size in (32, 64))
    assert 3.5 < large / small < 4.5


def test_what_it_refuses(compared: Path, tmp_path: Path) -> None:
    data, out = compared / "shapes", compared / "out"
    with pytest.raises(UsageError, match="asked for otherwise"):
        compare(MODELS, data, out, image_size=80, settings=ONCE)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="holds other files"):
        compare(["lenet5"], data, tmp_path)
    for models, said in (
        ([], "nothing to compare"),
        (["lenet5", "lenet5"], "named twice"),
        (["lenet6"], "unknown model 'lenet6'"),
    ):
        with pytest.raises(UsageError, match=said):
            compare(models, data, tmp_path / "other")
    with pytest.raises(UsageError, match="minutes is 0"):
        compare(["lenet5"], data, tmp_path / "other", minutes=0)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("torchvision:vgg11", 11), ("torchvision:resnet18", 18), ("torchvision:googlenet", 22),
        ("timm:resnet50", 50), ("lenet5", 7), ("alexnet", 8),
    ],
)  # fmt: skip
def test_layers_are_counted_as_the_papers_count_them(name: str, count: int) -> None:
    from alexnet.models.registry import model_entry

    network = create_model("lenet5" if ":" in name else name)
    assert layers(name, network, model_entry(name).layers) == count


def test_a_size_that_is_too_small_becomes_the_least_that_the_network_takes() -> None:
    assert _side("alexnet", 64) == 67
    assert _side("alexnet", 227) == 227
    assert _side("torchvision:resnet18", 64) == 64


def test_activations_that_are_functions_are_heard() -> None:
    network = create_model("torchvision:googlenet", num_classes=3)
    assert not any(isinstance(module, torch.nn.ReLU) for module in network.modules())
    assert activations(network, (3, 64, 64)) == "ReLU"
    assert activations(torch.nn.Flatten(), (3, 8, 8)) == "none"
