"""From ImageNet's archives to a prediction, by the commands that a person types."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet.cli.main import main
from alexnet.data import open_data

Words = dict[str, str]


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def go(
    folder: Path, words: Words, train: int, val: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prepare, train, evaluate and predict."""
    packed, run = str(folder / "packed"), str(folder / "run")
    data = f"imagenet:{folder / 'imagenet'}"
    assert main(["prepare", data, "-o", packed, "--size", "32", "--json"]) == 0
    (done,) = said(capsys)
    assert (done["images"], done["refused"]) == (train + val, 0)
    splits = open_data(packed)
    assert (len(splits.classes), len(splits.test or ())) == (len(words), val)
    assert splits.descriptions == words
    # The inner nodes of WordNet, which no picture has, are left out.
    assert json.loads((folder / "packed" / "prepared.json").read_text())["descriptions"] == words
    epochs = ["--set", "training.epochs=1", "--json"]
    assert main(["train", packed, "-m", "lenet5_dense", "-o", run, *epochs]) == 0
    (trained,) = said(capsys)
    assert trained["test_images"] == val
    assert main(["evaluate", run, "--data", packed, "--json"]) == 0
    (measured,) = said(capsys)
    assert measured["images"] == val
    assert measured["top1"] == trained["test_top1"]
    assert main(["evaluate", run, "--data", data, "--split", "test", "--json"]) == 0
    (direct,) = said(capsys)
    assert direct["images"] == val
    picture = folder / "picture.jpg"
    picture.write_bytes(next(iter(_pictures(folder))))
    assert main(["predict", run, str(picture), "--json"]) == 0
    (answer,) = said(capsys)
    for one in answer["predictions"]:
        assert one.keys() == {"label", "probability", "description"}
        assert words[one["label"]] == one["description"]
    assert main(["predict", run, str(picture), "--top", "1"]) == 0
    first = answer["predictions"][0]
    assert f"  {first['label']} ({first['description']}) " in capsys.readouterr().out


def _pictures(folder: Path) -> list[bytes]:
    content = (folder / "imagenet" / "ILSVRC2012_img_val.tar").read_bytes()
    start = content.index(b"\xff\xd8\xff")
    return [content[start : content.index(b"\xff\xd9", start) + 2]]


def test_from_the_archives_to_a_prediction(
    tmp_path: Path, write_archives: Callable[..., Words], capsys: pytest.CaptureFixture[str]
) -> None:
    words = write_archives(tmp_path / "imagenet")
    go(tmp_path, words, 24, 8, capsys)


@pytest.mark.slow
def test_a_thousand_classes(
    tmp_path: Path, write_archives: Callable[..., Words], capsys: pytest.CaptureFixture[str]
) -> None:
    words = write_archives(tmp_path / "imagenet", synsets=1000, train=3, val=1)
    go(tmp_path, words, 3000, 1000, capsys)


def test_a_broken_picture_is_left_out_and_listed(
    tmp_path: Path, write_archives: Callable[..., Words], capsys: pytest.CaptureFixture[str]
) -> None:
    write_archives(tmp_path / "imagenet")
    archive = tmp_path / "imagenet" / "ILSVRC2012_img_train.tar"
    content = bytearray(archive.read_bytes())
    first = content.index(b"\xff\xd8\xff")
    content[first : first + 300] = bytes(300)
    archive.write_bytes(content)
    packed = tmp_path / "packed"
    line = ["prepare", f"imagenet:{tmp_path / 'imagenet'}", "-o", str(packed), "--json"]
    assert main(line) == 1
    (done,) = said(capsys)
    assert (done["images"], done["refused"]) == (31, 1)
    (refused,) = (packed / "bad_images.csv").read_text().splitlines()[1:]
    assert refused.startswith("train/n00007919/n00007919_0.JPEG,")
    splits = open_data(str(packed), val_fraction=0)
    assert (len(splits.train), len(splits.refused)) == (23, 1)
    assert main(line) == 1
    # Prepared again, it still tells what was left out of the first.
    assert main(["prepare", str(packed), "-o", str(tmp_path / "smaller"), "--size", "20"]) == 1
    assert open_data(str(tmp_path / "smaller"), val_fraction=0).refused == splits.refused
