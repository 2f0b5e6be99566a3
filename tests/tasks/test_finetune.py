"""A folder of pictures becomes a classifier."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import alexnet
from alexnet.cli.main import main
from alexnet.data.fit import fit
from alexnet.data.loader import load_pixels
from alexnet.data.sources import open_data
from alexnet.errors import UsageError
from alexnet.models import create_model, save_run
from alexnet.models.pretrained import load_run
from alexnet.tasks.finetune import PENALTIES, solve_head, suited, unfreeze_last
from alexnet.tasks.run import Run
from alexnet.training.recipes import get_recipe

Draw = Callable[..., Path]

SMALL: dict[str, Any] = {"data.image_size": 63, "training.epochs": 3, "data.val_fraction": 0.2}
CONVOLUTIONS = [f"conv{number}.{kind}" for number in range(1, 6) for kind in ("weight", "bias")]


@pytest.fixture(scope="module")
def shapes(draw_shapes: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("finetune") / "shapes", per_class=24, side=48)


@pytest.fixture(scope="module")
def tuned(shapes: Path) -> Run:
    return alexnet.finetune(shapes, shapes.parent / "tuned", settings=SMALL)


def history(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if "second" not in k} for one in lines]


def test_a_small_folder_is_learned(tuned: Run, shapes: Path) -> None:
    assert tuned.metrics["test_top1"] >= 0.8
    assert tuned.metrics["test_images"] == 14
    assert tuned.config["classes"] == ["circle", "cross", "square"]
    assert tuned.config["initialized_from"] == "imagenet1k-features"
    assert tuned.config["arguments"]["hidden"] == 0
    stages = [record["stage"] for record in history(tuned.folder)]
    assert stages == ["head", "finetune", "finetune", "finetune", "average"]
    assert [record["epoch"] for record in history(tuned.folder)] == [0, 1, 2, 3, 4]
    assert history(tuned.folder)[0]["train_top1"] > 0.9
    classifier = alexnet.Classifier.load(tuned.folder)
    (answers,) = classifier.predict([shapes / "cross" / "0.png"])
    assert answers[0].label == "cross"


def test_the_whole_picture_is_seen_to_its_edges(tuned: Run) -> None:
    classifier = alexnet.Classifier.load(tuned.folder)
    wide = np.zeros((90, 200, 3), np.uint8)
    wide[:, :10], wide[:3] = 255, 255  # left and upper edge
    square = fit(wide, classifier.spec)
    assert classifier.spec.fit == "stretch"
    assert classifier.spec.resize == classifier.spec.crop == 63
    assert square[0, 30, 0] > 200
    assert square[0, 0, 30] > 200
    assert square[0, 30, 30] == 0


def test_a_network_with_a_border_sees_the_whole_picture_too(shapes: Path, tmp_path: Path) -> None:
    settings = {"data.fit": "stretch", "training.epochs": 1}
    run = alexnet.train(shapes, "lenet5_dense", out=tmp_path / "run", settings=settings)
    spec = alexnet.Classifier.load(run.folder).spec
    assert (spec.fit, spec.resize, spec.pad) == ("stretch", 28, 2)


def test_more_pictures_are_trained_on_more_boldly_unless_told_otherwise() -> None:
    recipe = get_recipe("finetune")
    assert suited(recipe, 1499, {}) == recipe
    assert recipe.finetune is not None
    assert recipe.finetune.share == 0.5
    some = suited(recipe, 1500, {})
    assert some.finetune is not None
    assert some.finetune.share == 1.0
    assert (some.training.lr, some.augment) == (recipe.training.lr, recipe.augment)
    asked = {"training.epochs": 3, "augment.scale": (0.8, 1.2), "finetune.share": 0.7}
    many = suited(recipe, 5000, asked)
    assert many.training.lr > recipe.training.lr
    assert many.augment.rotate < recipe.augment.rotate
    assert (many.training.epochs, many.augment.scale) == (3, (0.8, 1.2))
    assert many.finetune is not None
    assert many.finetune.share == 0.7
    most = suited(recipe, 20_000, {})
    assert most.training.epochs < suited(recipe, 19_999, {}).training.epochs
    assert not most.augment.resamples
    assert most.augment.mirror


def test_few_pictures_get_the_mean_of_head_and_fine_tuned(tuned: Run) -> None:
    kept = load_file(tuned.folder / "model.safetensors")
    head, fine = (
        load_file(tuned.folder / "checkpoints" / f"{name}.safetensors")
        for name in ("head", "finetuned")
    )
    for name in CONVOLUTIONS:
        torch.testing.assert_close(kept[name], (head[name] + fine[name]) / 2)
    assert not torch.equal(head["conv5.weight"], fine["conv5.weight"])
    assert not torch.equal(kept["fc8.weight"], (head["fc8.weight"] + fine["fc8.weight"]) / 2)
    # What the metrics say is what is kept, not what the last epoch was.
    evaluation = alexnet.evaluate(tuned.folder, str(tuned.config["data"]["folder"]), split="val")
    assert tuned.metrics["val_loss"] == pytest.approx(evaluation.loss, rel=1e-4)


def test_a_share_of_one_keeps_the_fine_tuned_weights(shapes: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "finetune.share": 1.0, "training.keep": "last", "training.epochs": 1}
    run = alexnet.finetune(shapes, tmp_path / "run", settings=settings)
    kept = load_file(run.folder / "model.safetensors")
    (newest,) = (run.folder / "checkpoints").glob("epoch-*")
    last = load_file(newest)
    for name, value in kept.items():
        assert torch.equal(value, last[f"model.{name}"])


@pytest.mark.parametrize(
    ("changes", "seen"), [({"finetune.share": 1.0}, 20), ({}, 46), ({"finetune.unfreeze": 0}, 46)]
)
def test_a_head_that_is_only_a_beginning_looks_at_some_pictures(
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, Any],
    seen: int,
) -> None:
    monkeypatch.setattr("alexnet.tasks.finetune.HEAD_PICTURES", 20)
    settings = {**SMALL, "training.epochs": 1, **changes}
    with caplog.at_level("INFO", logger="alexnet"):
        alexnet.finetune(shapes, tmp_path / "run", settings=settings)
    assert f"head: 256 features of {seen} pictures and their mirror images" in caplog.text


def test_killed_at_its_very_end_it_is_averaged_once(
    shapes: Path, tuned: Run, tmp_path: Path
) -> None:
    """Between the averaged weights and the line that says 'finished' a run can be killed."""
    run = tmp_path / "run"
    shutil.copytree(tuned.folder, run)
    config = json.loads((run / "config.json").read_text())
    config["status"] = "running"
    (run / "config.json").write_text(json.dumps(config))
    again = alexnet.finetune(shapes, run, resume=True)
    assert again.metrics["test_loss"] == pytest.approx(tuned.metrics["test_loss"], abs=1e-6)
    assert history(run) == history(tuned.folder)
    mine, theirs = (load_file(one / "model.safetensors") for one in (run, tuned.folder))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def balanced_loss(run: Run, folder: Path) -> float:
    """The validation loss with each class counting alike, as Menon et al. write it."""
    parts = open_data(str(folder), val_fraction=0.3)
    assert parts.val is not None
    loaded = load_run(run.folder)
    pixels = load_pixels(parts.val, loaded.spec, train=False)
    ((batch, labels, _),) = pixels.batches([torch.arange(len(pixels))])
    prior = torch.bincount(torch.tensor(parts.train.labels)).float()
    with torch.inference_mode():
        logits = loaded.network.eval()(loaded.spec.normalize(batch))
    return float(F.cross_entropy(logits + (prior / prior.sum()).log(), labels))


def test_the_heads_penalty_is_chosen_by_the_loss_that_it_minimizes(
    shapes: Path, tmp_path: Path
) -> None:
    unequal = tmp_path / "unequal"
    shutil.copytree(shapes, unequal)
    for number in range(8, 24):
        (unequal / "cross" / f"{number}.png").unlink()
    settings = {**SMALL, "finetune.unfreeze": 0, "data.val_fraction": 0.3}
    chosen = alexnet.finetune(unequal, tmp_path / "chosen", settings=settings)
    told = {
        l2: alexnet.finetune(unequal, tmp_path / f"{l2}", settings={**settings, "finetune.l2": l2})
        for l2 in PENALTIES
    }
    best = min(PENALTIES, key=lambda l2: balanced_loss(told[l2], unequal))
    kept, wanted = (load_file(run.folder / "model.safetensors") for run in (chosen, told[best]))
    assert torch.equal(kept["fc8.weight"], wanted["fc8.weight"])


def test_the_last_layers_change_and_the_others_do_not(tuned: Run) -> None:
    before = create_model("alexnet_owt", "imagenet1k-features", hidden=0, image_size=63)
    after = load_file(tuned.folder / "model.safetensors")
    changed = {
        name
        for name, tensor in before.state_dict().items()
        if name in CONVOLUTIONS and not torch.equal(tensor, after[name])
    }
    unfrozen = tuned.config["settings"]["finetune"]["unfreeze"] - 1  # the head is one of them
    if tuned.metrics["epoch"] > 0:
        assert changed == set(CONVOLUTIONS[-2 * unfrozen :])


def test_without_unfreezing_it_is_a_linear_probe(shapes: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "finetune.unfreeze": 0, "finetune.l2": 0.1}
    run = alexnet.finetune(shapes, tmp_path / "run", settings=settings)
    assert [record["stage"] for record in history(run.folder)] == ["head"]
    assert run.metrics["epoch"] == 0
    assert run.metrics["test_top1"] >= 0.8
    assert (run.folder / "report.html").is_file()
    before = create_model("alexnet_owt", "imagenet1k-features", hidden=0, image_size=63)
    after = load_file(run.folder / "model.safetensors")
    for name in CONVOLUTIONS:
        assert torch.equal(before.state_dict()[name], after[name])


def test_killed_while_it_is_fine_tuned_it_goes_on_as_undisturbed(
    shapes: Path, tuned: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    line = [sys.executable, "-m", "alexnet", "finetune", str(shapes), "-o", str(run)]
    line += [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(run.glob("checkpoints/epoch-*")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert len(history(run)) < len(history(tuned.folder))
    assert main([*line[3:], "--resume"]) == 0
    assert history(run) == history(tuned.folder)
    mine, theirs = (load_file(one / "model.safetensors") for one in (run, tuned.folder))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_whole_network_of_other_classes_is_a_beginning_too(shapes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_run(tmp_path / "ten", create_model("lenet5_dense"))
    settings = {"training.epochs": 6, "training.lr": 0.001}
    run = alexnet.finetune(
        shapes, tmp_path / "run", model="lenet5_dense", weights=str(tmp_path / "ten"),
        settings=settings,
    )  # fmt: skip
    assert run.metrics["test_images"] == 14
    assert run.metrics["test_top1"] > 0.5
    assert alexnet.Classifier.load(run.folder).classes == ("circle", "cross", "square")


def test_a_network_without_a_linear_classifier_is_refused(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_run(tmp_path / "lenet", create_model("lenet5"))
    line = ["finetune", str(shapes), "-o", str(tmp_path / "run"), "-m", "lenet5", "-w"]
    assert main([*line, str(tmp_path / "lenet")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "lenet5 has no linear classifier to fine-tune: choose an AlexNet" in said


def test_classes_count_alike_however_few_pictures_they_have(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=30, side=48)
    for number in range(6, 30):
        (data / "cross" / f"{number}.png").unlink()
    run = alexnet.finetune(data, tmp_path / "run", settings={**SMALL, "finetune.unfreeze": 0})
    assert run.metrics["test_balanced_accuracy"] >= 0.7


@pytest.mark.parametrize("l2", [0.01, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_is_the_minimum_that_scikit_learn_finds(l2: float, weighted: bool) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    features = random.normal(size=(200, 6)) * 5 + 3
    features[:, :3] += 3 * np.eye(3)[labels]
    features = torch.tensor(features, dtype=torch.float32)
    offset = torch.tensor([0.0, 1.0, -2.0]) if weighted else torch.zeros(3)
    head = nn.Linear(6, 3)
    solve_head(head, features, torch.from_numpy(labels), offset, l2)
    std = features.std(0)
    std = std + 1e-3 * std.mean() + 1e-6
    standardized = (features - features.mean(0)) / std
    if not weighted:
        other = linear_model.LogisticRegression(C=1 / (l2 * len(labels)), tol=1e-8, max_iter=1000)
        other.fit(standardized.numpy(), labels)
        theirs = torch.tensor(other.predict_proba(standardized.numpy()), dtype=torch.float32)
        torch.testing.assert_close(head(features).softmax(1), theirs, atol=2e-3, rtol=0)
    # At the minimum the gradient of the convex objective, the offset included, is zero.
    weight = (head.weight.detach() * std).requires_grad_()
    bias = (head.bias + head.weight @ features.mean(0)).detach().requires_grad_()
    loss = F.cross_entropy(
        F.linear(standardized, weight, bias) + offset, torch.from_numpy(labels)
    ) + l2 / 2 * weight.square().sum()  # fmt: skip
    for gradient in torch.autograd.grad(loss, (weight, bias)):
        assert gradient.abs().max() < 2e-3


def test_a_feature_that_never_fires_stays_out_of_the_head() -> None:
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] > 0).long()
    features[:, 3] = 0
    head = nn.Linear(4, 2)
    solve_head(head, features, labels, torch.zeros(2), 0.01)
    assert head.weight.isfinite().all()
    assert head.weight[:, 3].abs().max() < 1e-6
    assert (head(features).argmax(1) == labels).float().mean() > 0.95


@pytest.mark.parametrize("count", [0, 1, 3, 99])
def test_unfreezing_counts_layers_from_the_end(count: int) -> None:
    network = create_model("lenet5_dense")
    unfreeze_last(network, count)
    layers = [name for name, module in network.named_modules() if list(module.parameters(False))]
    trained = {name.rpartition(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == set(layers[len(layers) - count :] if count < len(layers) else layers)


def test_small_pictures_get_a_small_input(
    draw_shapes: Draw, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=6, side=20)
    settings = {"finetune.unfreeze": 0, "finetune.l2": 0.1}
    with caplog.at_level("INFO", logger="alexnet"):
        run = alexnet.finetune(data, tmp_path / "run", settings=settings)
    assert run.config["input"]["size"] == 127
    assert "the pictures are small (20 pixels)" in caplog.text


def test_weights_of_another_model_are_refused_before_anything_is_written(
    shapes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="belong to alexnet_owt"):
        alexnet.finetune(shapes, tmp_path / "run", model="alexnet")
    assert not list(tmp_path.glob("run/*"))
