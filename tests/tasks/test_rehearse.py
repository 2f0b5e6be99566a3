from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet.cli.main import main
from alexnet.errors import UsageError
from alexnet.models import create_model
from alexnet.tasks.finetune import BY_SIZE, SMALL_INPUT, unfreeze_last
from alexnet.tasks.rehearse import rehearse, rehearse_finetune
from alexnet.training.recipes import RECIPES

Draw = Callable[..., Path]


def test_it_counts_the_steps_of_the_whole_and_measures_a_few() -> None:
    found = rehearse("mnist-5k", "lenet5_dense", settings={"training.batch_size": 30})
    assert found.pictures == {"train": 4000, "val": 0, "test": 1000}
    assert (found.steps_an_epoch, found.steps) == (134, 134 * 20)
    assert found.parameters == 61_706
    assert 0 < found.step_seconds < 10
    assert found.seconds == pytest.approx(20 * 4000 / 30 * found.step_seconds, rel=0.01)
    assert 1e8 < found.memory_bytes < 8e9
    assert found.config["training"]["batch_size"] == 30


def test_the_validation_part_costs_a_third_a_picture() -> None:
    settings = {"data.val_fraction": 0.5, "training.epochs": 1, "training.batch_size": 50}
    found = rehearse("mnist-5k", "lenet5_dense", settings=settings)
    assert found.pictures["val"] == 2000
    expected = (40 + 2000 / 50 / 3) * found.step_seconds
    assert found.seconds == pytest.approx(expected)


def test_a_finetuning_is_rehearsed_with_the_settings_for_that_many_pictures() -> None:
    found = rehearse_finetune("mnist-5k", settings={"data.val_fraction": 0.25})
    assert found.pictures == {"train": 3000, "val": 1000, "test": 1000}
    assert found.config["training"]["epochs"] == dict(BY_SIZE)[1500]["training.epochs"]
    assert found.steps_an_epoch == math.ceil(3000 / found.config["training"]["batch_size"])
    network = create_model("alexnet_owt", num_classes=10, hidden=0, image_size=SMALL_INPUT)
    unfreeze_last(network, found.config["finetune"]["unfreeze"])
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert 0 < found.parameters == trained < sum(p.numel() for p in network.parameters())


def test_the_command_prints_settings_steps_time_and_memory_and_writes_nothing(
    draw_shapes: Draw,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = draw_shapes(tmp_path / "shapes")
    monkeypatch.chdir(tmp_path)
    line = ["train", str(data), "--model", "lenet5_dense", "--dry-run", "--set", "training.lr=0.25"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "training.lr = 0.25\n" in said
    for words in ("steps ", "a step takes ", "all takes about ", "memory "):
        assert words in said
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["training"]["lr"] == 0.25
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


def test_without_a_run_folder_only_a_rehearsal_is_possible(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["train", "mnist-5k"]) == 2
    assert "'alexnet train' needs --out, the run folder to write" in capsys.readouterr().err


def test_several_processes_are_not_rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="start it without torchrun"):
        rehearse("mnist-5k", "lenet5")


@pytest.mark.parametrize("recipe", sorted(RECIPES.keys() - {"finetune", "original"}))
def test_every_recipe_takes_its_steps(recipe: str, draw_shapes: Draw, tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=10)
    found = rehearse(data, "lenet5_dense", recipe, settings={"training.batch_size": 4})
    assert found.steps == found.steps_an_epoch * found.config["training"]["epochs"]


def test_the_original_recipe_takes_its_steps_with_the_network_it_is_for(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=10)
    small = {"data.image_size": 67, "model.hidden": 16, "training.batch_size": 8}
    found = rehearse(data, "alexnet", "original", settings=small)
    assert found.config["model"]["preset"] == "original"
    with pytest.raises(UsageError, match="unknown argument of lenet5_dense 'preset'"):
        rehearse(data, "lenet5_dense", "original")


def test_classes_that_the_first_pictures_lack_are_counted(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=40)
    settings = {
        "training.batch_size": 4, "training.epochs": 1, "data.image_size": 64, "augment.mixup": 0.4,
        "data.val_fraction": 0.0,
    }  # fmt: skip
    model = "torchvision:shufflenet_v2_x0_5"  # which does not tell how many classes it has
    assert rehearse(data, model, recipe="modern", settings=settings).step_seconds > 0


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [("lenet-1998", {"training.lr": 1e-9}), ("lenet-modern", {"training.patience": 2})],
)
def test_what_would_do_nothing_is_refused(recipe: str, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(UsageError, match=f"{name} does nothing where"):
        rehearse("mnist-5k", "lenet5", recipe=recipe, settings=settings)
