from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.errors import UsageError
from alexnet.models import create_model, load_run
from alexnet.tasks.predict import Classifier, Prediction
from alexnet.tasks.run import Run

Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def classifier(draw_shapes: Draw, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder = tmp_path_factory.mktemp("predict")
    settings = {
        "training.epochs": 12, "training.batch_size": 8, "data.test_fraction": 0.0,
        "model.in_chans": 3, "training.lr": 0.02,
    }  # fmt: skip
    data = draw_shapes(folder / "shapes", per_class=20)
    run = alexnet.train(data, "lenet5_dense", out=folder / "run", settings=settings)
    return Classifier.load(run.folder)


@pytest.fixture
def pictures(draw_shapes: Draw, tmp_path: Path) -> list[Path]:
    folder = draw_shapes(tmp_path / "shapes", per_class=4)
    return sorted(folder.rglob("*.png"))


def kinds(path: Path) -> dict[str, Any]:
    """The same picture in every way that a program has it."""
    picture = Image.open(path).convert("RGB")
    pixels = np.asarray(picture)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return {
        "str": str(path),
        "Path": path,
        "bytes": stream.getvalue(),
        "PIL": picture,
        "array": pixels,
        "tensor": torch.from_numpy(pixels.copy()).permute(2, 0, 1),
    }


@pytest.mark.parametrize("kind", ["str", "Path", "bytes", "PIL", "array", "tensor"])
def test_a_picture_of_any_kind_gets_the_same_answers(
    kind: str, classifier: Classifier, pictures: list[Path]
) -> None:
    expected = classifier.predict(str(pictures[0]))
    answers = classifier.predict(kinds(pictures[0])[kind])
    assert answers == expected
    assert [type(answer) for answer in answers] == [Prediction] * 3
    assert sum(answer.probability for answer in answers) == pytest.approx(1, abs=1e-5)
    shares = [answer.probability for answer in answers]
    assert shares == sorted(shares, reverse=True)


def test_gray_arrays_are_pictures_too(classifier: Classifier) -> None:
    gray = np.full((30, 40), 128, dtype=np.uint8)
    expected = classifier.predict(np.stack([gray] * 3, axis=2))
    assert classifier.predict(gray) == expected
    assert classifier.predict(gray[..., None]) == expected
    assert classifier.predict(Image.fromarray(gray)) == expected


def test_one_picture_gives_a_list_and_a_list_a_list_of_lists(
    classifier: Classifier, pictures: list[Path]
) -> None:
    single = classifier.predict(pictures[0])
    assert isinstance(single[0], Prediction)
    assert classifier.predict([pictures[0]]) == [single]
    pair = classifier.predict((pictures[0], np.asarray(Image.open(pictures[0]))))
    assert [[one.label for one in answers] for answers in pair] == [
        [one.label for one in single]
    ] * 2
    assert classifier.predict([]) == []


def test_it_knows_the_shapes(classifier: Classifier, pictures: list[Path]) -> None:
    answers = classifier.predict(pictures)
    right = [
        answer[0].label == path.parent.name for answer, path in zip(answers, pictures, strict=True)
    ]
    assert np.mean(right) >= 0.75


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_the_answers_do_not_depend_on_the_batch_size(
    batch_size: int, classifier: Classifier, pictures: list[Path]
) -> None:
    expected = classifier.predict(pictures, batch_size=4)
    found = classifier.predict(pictures, batch_size=batch_size)
    for mine, theirs in zip(found, expected, strict=True):
        assert [one.label for one in mine] == [one.label for one in theirs]
        for one, other in zip(mine, theirs, strict=True):
            assert one.probability == pytest.approx(other.probability, abs=1e-5)


@pytest.mark.parametrize(("top", "count"), [(1, 1), (2, 2), (3, 3), (5, 3), (1000, 3)])
def test_no_more_answers_than_classes(
    top: int, count: int, classifier: Classifier, pictures: list[Path]
) -> None:
    assert len(classifier.predict(pictures[0], top=top)) == count
    assert classifier.predict(pictures[0], top=top) == classifier.predict(pictures[0])[:count]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_files_keep_their_order_and_a_bad_one_stops_nothing(
    batch_size: int, classifier: Classifier, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(pictures[0].read_bytes()[:60])
    bad = [
        tmp_path / name for name in ("empty.jpg", "missing.jpg", "notes.txt", "cut.png", "shapes")
    ]
    order = [bad[0], pictures[0], bad[1], bad[2], pictures[1], pictures[0], bad[3], bad[4]]
    paths = [str(path) for path in order]
    found = list(classifier.predict_files(iter(paths), batch_size=batch_size))
    assert [path for path, _ in found] == paths
    for path, (_, answer) in zip(order, found, strict=True):
        if path in bad:
            assert isinstance(answer, str)
            assert "\n" not in answer
        else:
            assert not isinstance(answer, str)
            assert [one.label for one in answer] == [one.label for one in classifier.predict(path)]


def test_files_are_answered_while_more_come(classifier: Classifier, pictures: list[Path]) -> None:
    asked: list[str] = []

    def endless() -> Any:
        while True:
            asked.append(str(pictures[0]))
            yield asked[-1]

    answers = classifier.predict_files(endless(), batch_size=2)
    assert next(answers)[0] == str(pictures[0])
    assert len(asked) == 2


def test_a_picture_that_cannot_be_read_is_one_line(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    for image in (tmp_path / "notes.txt", tmp_path / "gone.jpg", b"", b"abc", 3.5, None):
        with pytest.raises(UsageError) as caught:
            classifier.predict(image)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"top": 0}, {"batch_size": 0}, {"top": -1}])
def test_numbers_below_one(wrong: dict[str, int], classifier: Classifier) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match=f"{name} is .*: it must be at least 1"):
        classifier.predict(np.zeros((9, 9), dtype=np.uint8), **wrong)
    with pytest.raises(UsageError, match=f"{name} is .*: it must be at least 1"):
        list(classifier.predict_files(["x"], **wrong))


def test_a_network_without_class_names_numbers_its_outputs(finished_run: Run) -> None:
    loaded = load_run(finished_run.folder)
    nameless = type(loaded)(loaded.network, None, loaded.spec, {})
    assert Classifier(nameless).classes == ("class 0", "class 1", "class 2")


def test_a_device_that_is_not_here(finished_run: Run) -> None:
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        Classifier.load(finished_run.folder, device="tpu")


def test_a_large_network_answers_alike_in_bf16(pictures: list[Path]) -> None:
    torch.manual_seed(0)
    network = create_model("alexnet_cifar", num_classes=4)
    loaded = load_run_of(network)
    plain, rough = (Classifier(loaded, device="cpu", precision=one) for one in ("fp32", "bf16"))
    for mine, theirs in zip(plain.predict(pictures), rough.predict(pictures), strict=True):
        shares = {one.label: one.probability for one in theirs}
        for one in mine:
            assert one.probability == pytest.approx(shares[one.label], abs=0.02)


def load_run_of(network: torch.nn.Module) -> Any:
    from alexnet.models import input_spec
    from alexnet.models.pretrained import LoadedModel

    return LoadedModel(network.eval(), tuple("abcd"), input_spec("alexnet_cifar"), {})
