"""A temperature is fitted on a part of its own, kept in the run, and used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import alexnet
from alexnet.data.sources import open_data
from alexnet.errors import UsageError
from alexnet.tasks.calibrate import calibrate


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LeNet on MNIST-5k, trained without augmentation until it is too sure."""
    settings = {
        "training.epochs": 12, "training.lr": 0.004, "training.batch_size": 32,
        "training.keep": "last", "data.val_fraction": 0.3,
    }  # fmt: skip
    out = tmp_path_factory.mktemp("calibrate") / "run"
    return alexnet.train("mnist-5k", "lenet5_dense", out=out, settings=settings).folder


def test_it_lowers_the_loss_of_the_test_part_and_moves_no_answer(run: Path) -> None:
    before = alexnet.evaluate(run, "mnist-5k", split="test")
    sure = alexnet.Classifier.load(run)
    found = calibrate(run, "mnist-5k")
    assert found.loss[1] < found.loss[0]
    assert found.images == 1200
    kept = json.loads((run / "config.json").read_text())["temperature"]
    assert kept == found.temperature != 1
    after = alexnet.evaluate(run, "mnist-5k", split="test")
    assert after.loss < before.loss
    assert (after.top1, after.top5) == (before.top1, before.top5)
    assert before.answers is not None
    assert after.answers is not None
    assert torch.equal(after.answers.taken_for, before.answers.taken_for)
    picture = torch.randint(0, 256, (1, 28, 28)).byte()
    (old, *_), (new, *_) = (clf.predict(picture) for clf in (sure, alexnet.Classifier.load(run)))
    assert old.label == new.label
    assert (new.probability < old.probability) == (kept > 1)


def test_once_more_it_finds_the_same(run: Path) -> None:
    """What a run has already is not divided by again."""
    first, second = calibrate(run, "mnist-5k"), calibrate(run, "mnist-5k")
    assert first == second


def test_a_part_without_a_mistake_is_refused(run: Path, tmp_path: Path) -> None:
    seen = alexnet.evaluate(run, "mnist-5k", split="test", mistakes=1000)
    wrong = {one.name for one in seen.mistakes}
    digits = open_data("mnist-5k").test
    assert digits is not None
    kept = json.loads((run / "config.json").read_text())
    for index, name in enumerate(digits.names):
        if name not in wrong and index % 10 == 0:
            folder = tmp_path / "right" / digits.classes[digits.labels[index]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.decode(index)[..., 0]).save(folder / f"{index}.png")
    with pytest.raises(UsageError, match=r"is right on all \d+ pictures of the train part"):
        calibrate(run, tmp_path / "right", split="train")
    assert json.loads((run / "config.json").read_text()) == kept


def test_what_it_cannot_do(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        calibrate(tmp_path, "mnist-5k")
    with pytest.raises(UsageError, match="not a run folder"):
        calibrate("lenet5/mnist-5k", "mnist-5k")
