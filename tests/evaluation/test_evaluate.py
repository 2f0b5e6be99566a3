from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.data.loader import load_pixels
from alexnet.data.sources import open_data
from alexnet.errors import UsageError
from alexnet.evaluation import evaluate, score
from alexnet.evaluation.evaluate import match_classes
from alexnet.models import create_model, load_run, save_run
from alexnet.runtime import resolve

COLORS = {"blue": 2, "green": 1, "red": 0}


def paint(folder: Path, classes: tuple[str, ...] = tuple(COLORS), per_class: int = 10) -> Path:
    """A folder of noisy pictures, of one color a class."""
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = random.integers(0, 100, (20, 20, 3), dtype=np.uint8)
            pixels[..., COLORS.get(name, 0)] += 120
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a network trained on ``colors``, which lies beside it."""
    folder = tmp_path_factory.mktemp("evaluate")
    settings = {
        "training.epochs": 8, "training.batch_size": 4, "model.in_chans": 3,
        "data.val_fraction": 0.2, "data.test_fraction": 0.3, "data.seed": 5,
    }  # fmt: skip
    data = paint(folder / "colors")
    return alexnet.train(data, "lenet5_dense", out=folder / "run", settings=settings).folder


def test_the_folder_of_the_training_is_divided_as_it_was(trained: Path) -> None:
    metrics = json.loads((trained / "config.json").read_text())["metrics"]
    colors = trained.parent / "colors"
    result = evaluate(trained, colors)
    assert result.images == metrics["test_images"] == 9
    assert result.top1 == metrics["test_top1"]
    assert result.loss == pytest.approx(metrics["test_loss"], rel=1e-6)
    assert result.classes == ("blue", "green", "red")
    assert evaluate(trained, colors, split="val").images == 4
    assert evaluate(trained, colors, split="train").images == 17
    assert result.top1 > 0.6


@pytest.mark.parametrize("how", ["absolute", "with a slash", "relative", "by a link"])
def test_it_is_the_same_folder_however_it_is_called(
    how: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colors = trained.parent / "colors"
    (tmp_path / "link").symlink_to(colors)
    monkeypatch.chdir(trained)
    name = {
        "absolute": str(colors),
        "with a slash": f"{colors}/",
        "relative": "../colors",
        "by a link": str(tmp_path / "link"),
    }[how]
    assert evaluate(trained, name).images == 9


def test_a_run_of_a_relative_folder_knows_it_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint(tmp_path / "colors")
    monkeypatch.chdir(tmp_path)
    settings = {"training.epochs": 1, "data.test_fraction": 0.3}
    alexnet.train("colors", "lenet5_dense", out="run", settings=settings)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert evaluate("../run", "../colors").images == 9
    paint(Path("colors"), per_class=11)  # of the same name, and another
    assert evaluate("../run", "colors").images == 33


def test_a_folder_that_was_moved_is_divided_as_it_was(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = shutil.copytree(trained.parent / "colors", tmp_path / "elsewhere")
    assert evaluate(trained, moved).images == 9
    assert evaluate(trained, moved).top1 == evaluate(trained, trained.parent / "colors").top1
    (moved / "red" / "0.png").rename(moved / "red" / "new.png")  # as many, but others
    assert evaluate(trained, moved).images == 30
    (moved / "red" / "new.png").rename(moved / "red" / "0.png")
    shutil.copy(moved / "red" / "1.png", moved / "red" / "0.png")  # of the same names
    caplog.clear()
    assert evaluate(trained, moved).images == 9
    assert "rename them to have all tested" in caplog.text


def test_an_ensemble_is_not_tested_on_what_one_of_it_learned(tmp_path: Path) -> None:
    def fold(number: int, val: float) -> str:
        settings = {
            "training.epochs": 1, "training.batch_size": 500, "data.fold": number,
            "data.val_fraction": val,
        }  # fmt: skip
        out = tmp_path / f"{number}-{val}"
        return str(alexnet.train("mnist-5k", "lenet5_dense", out=out, settings=settings).folder)

    first, other = fold(0, 0.0), fold(1, 0.0)
    with pytest.raises(UsageError, match=r"1-0\.0 learned from 1,000 of the 1,000 pictures"):
        evaluate([first, other], "mnist-5k")
    assert evaluate([first, fold(0, 0.5)], "mnist-5k").images == 1000
    assert evaluate([first, other], "mnist-5k", split="train").images == 4000


def test_another_folder_is_read_whole(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = evaluate(trained, paint(tmp_path / "others", per_class=7))
    assert result.images == 21
    assert "has changed" not in caplog.text
    with pytest.raises(UsageError, match="has no 'test' part: choose from train, auto"):
        evaluate(trained, tmp_path / "others", split="test")


def test_a_folder_that_has_changed_since_is_said_to_have(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(trained.parent, tmp_path / "copy")
    colors, run = tmp_path / "copy" / "colors", tmp_path / "copy" / "run"
    config = json.loads((run / "config.json").read_text())
    config["data"]["folder"] = str(colors)
    (run / "config.json").write_text(json.dumps(config))
    evaluate(run, colors)
    assert not caplog.records
    for number in range(20):
        shutil.copy(colors / "red" / "0.png", colors / "red" / f"new {number}.png")
    evaluate(run, colors)
    (record,) = caplog.records
    assert "has changed since the network was trained on it" in record.getMessage()


def test_a_folder_with_parts_is_read_by_its_test_part(trained: Path, tmp_path: Path) -> None:
    paint(tmp_path / "parts" / "train", per_class=3)
    paint(tmp_path / "parts" / "test", per_class=2)
    assert evaluate(trained, tmp_path / "parts").images == 6
    assert evaluate(trained, tmp_path / "parts", split="train").images == 9
    shutil.move(tmp_path / "parts" / "test", tmp_path / "parts" / "val")
    assert evaluate(trained, tmp_path / "parts").images == 6
    assert evaluate(trained, tmp_path / "parts", split="val").images == 6


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_the_result_does_not_depend_on_the_batch_size(batch_size: int, trained: Path) -> None:
    colors = trained.parent / "colors"
    whole, parts = (
        evaluate(trained, colors, split="train", batch_size=size) for size in (17, batch_size)
    )
    assert (parts.top1, parts.top5, parts.images) == (whole.top1, whole.top5, whole.images)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    np.testing.assert_array_equal(parts.confusion, whole.confusion)


def test_classes_are_matched_by_name(trained: Path, tmp_path: Path) -> None:
    """A folder without the first class numbers its classes otherwise."""
    result = evaluate(trained, paint(tmp_path / "two", ("green", "red"), per_class=8))
    assert result.classes == ("blue", "green", "red")
    assert result.confusion.sum(1).tolist() == [0, 8, 8]
    assert result.top1 > 0.6


def test_a_class_that_the_network_does_not_know(trained: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "more", ("amber", "green", "red", "violet"), per_class=2)
    with pytest.raises(UsageError) as caught:
        evaluate(trained, data)
    assert "has 2 class(es) that the network was not trained on (amber, violet)" in str(
        caught.value
    )
    assert "it knows blue, green, red" in str(caught.value)


def test_matching_renumbers() -> None:
    labels = torch.tensor([0, 1, 1, 0])
    assert match_classes(labels, ("c", "a"), ("a", "b", "c"), "x").tolist() == [2, 0, 0, 2]
    assert match_classes(labels, ("a", "b"), ("a", "b"), "x") is labels


def test_pictures_that_cannot_be_read_are_counted(trained: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "bad", per_class=4)
    (data / "red" / "broken.png").write_bytes(b"")
    (data / "blue" / "notes.txt").write_text("no picture")
    result = evaluate(trained, data)
    assert result.images == 12
    assert {bad.name for bad in result.skipped} == {"red/broken.png", "blue/notes.txt"}
    assert result.to_dict()["skipped"] == 2


def test_the_most_confident_mistakes_come_first(trained: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "swapped", per_class=6)
    (data / "red").rename(data / "x")
    (data / "green").rename(data / "red")
    (data / "x").rename(data / "green")
    result = evaluate(trained, data, mistakes=5)
    assert len(result.mistakes) == 5
    shares = [mistake.probability for mistake in result.mistakes]
    assert shares == sorted(shares, reverse=True)
    for mistake in result.mistakes:
        assert mistake.label == mistake.name.split("/")[0]
        assert mistake.predicted != mistake.label
        assert mistake.thumbnail.shape == (28, 28, 3)
        assert mistake.thumbnail.dtype == np.uint8
    # What is shown is the picture of that name.
    worst = result.mistakes[0]
    color = {"green": 0, "red": 1, "blue": 2}[worst.label]
    assert worst.thumbnail.reshape(-1, 3).mean(0).argmax() == color
    assert evaluate(trained, data, mistakes=0).mistakes == ()


def test_bf16_is_close_to_fp32(trained: Path) -> None:
    colors = trained.parent / "colors"
    plain = evaluate(trained, colors, split="train", precision="fp32")
    rough = evaluate(trained, colors, split="train", precision="bf16")
    assert rough.loss == pytest.approx(plain.loss, abs=0.05)
    assert rough.loss != plain.loss


def test_a_network_without_class_names_is_read_in_the_data_s_order(
    trained: Path, tmp_path: Path
) -> None:
    loaded = load_run(trained)
    save_run(tmp_path / "nameless", loaded.network, spec=loaded.spec)
    config = json.loads((tmp_path / "nameless" / "config.json").read_text())
    config["classes"] = None
    (tmp_path / "nameless" / "config.json").write_text(json.dumps(config))
    data = paint(tmp_path / "colors", per_class=5)
    assert evaluate(tmp_path / "nameless", data).top1 == evaluate(trained, data).top1
    shutil.rmtree(data / "red")
    with pytest.raises(UsageError, match="has 3 outputs without names and the data 2 classes"):
        evaluate(tmp_path / "nameless", data)


def test_a_loaded_classifier_serves_as_well(trained: Path) -> None:
    classifier = alexnet.Classifier.load(trained)
    colors = trained.parent / "colors"
    assert evaluate(classifier, colors).top1 == evaluate(trained, colors).top1


def test_a_batch_of_nothing(trained: Path) -> None:
    with pytest.raises(UsageError, match="batch_size is 0: it must be at least 1"):
        evaluate(trained, trained.parent / "colors", batch_size=0)


def test_dropout_is_off_while_it_is_scored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model("lenet5_dense", num_classes=3, dropout=0.9).train()
    spec = dataclasses.replace(load_spec(), resize=28)
    splits = open_data(str(paint(tmp_path / "colors", per_class=3)), test_fraction=0)
    pixels = load_pixels(splits.train, spec, train=False)
    runtime = resolve("cpu", "fp32", large=False)
    losses = {score(network, pixels, spec, runtime, splits.classes).loss for _ in range(3)}
    assert len(losses) == 1


def load_spec() -> alexnet.InputSpec:
    from alexnet.models import input_spec

    return input_spec("lenet5_dense")
